"""Score-based multimodal autoencoders in JAX: any modality from any others.

`sbm_jax.fit(data, workdir)` trains on your own arrays; see `sbm_jax.fitting.fit`. `sbm_jax.load(workdir)` loads a
trained system; see `sbm_jax.trained.TrainedSystem`. `sbm_jax.default_config()` is the starting point of config files;
see `sbm_jax.experiment_config.ExperimentConfig`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbm_jax.experiment_config import default_config
    from sbm_jax.fitting import fit
    from sbm_jax.trained import load

__version__ = "0.2.0"
__all__ = ["default_config", "fit", "load"]

_WHERE = {"default_config": "experiment_config", "fit": "fitting", "load": "trained"}


def __getattr__(name: str) -> Any:
    """Import a function when it is first used, so that importing a part of the package stays cheap."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
