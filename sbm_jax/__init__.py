"""Score-based multimodal autoencoders in JAX: any modality from any others.

`sbm_jax.load(workdir)` returns a trained system; see `sbm_jax.trained.TrainedSystem`.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for, so that importing a part of the package stays cheap."""
    if name == "load":
        from sbm_jax.trained import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
