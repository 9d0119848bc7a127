"""Pictures of one channel, without an axis for it."""

import numpy as np

from sbm_jax.errors import require
from sbm_jax.formats.base import Format, NoOptions
from sbm_jax.types import Modality


class Grey(Format):
    """Pictures [N, H, W] that networks see as [N, H, W, 1]."""

    def __init__(self, modality: Modality, options: NoOptions):
        """Check that the modality has one channel."""
        super().__init__(modality, options)
        fits = len(modality.shape) == 3 and modality.shape[-1] == 1
        require(fits, f"modality {modality.name!r}: shape", modality.shape, "(height, width, 1)")

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return pictures with an axis for the channel."""
        del where
        values = np.asarray(values)
        return values[..., None] if values.ndim == 3 else values

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return pictures without that axis."""
        return array[..., 0]
