"""Score-based multimodal autoencoders in JAX: any modality from any others.

`sbm_jax.fit(data, workdir)` trains on your own arrays; see `sbm_jax.fitting.fit`. `sbm_jax.load(workdir)` loads a
trained system; see `sbm_jax.trained.TrainedSystem`. `sbm_jax.default_config()` is the starting point of config files;
see `sbm_jax.experiment_config.ExperimentConfig`.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["default_config", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import each attribute on first access, so that importing part of the package stays cheap."""
    if name == "load":
        from sbm_jax.trained import load

        return load
    if name == "fit":
        from sbm_jax.fitting import fit

        return fit
    if name == "default_config":
        from sbm_jax.experiment_config import default_config

        return default_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
