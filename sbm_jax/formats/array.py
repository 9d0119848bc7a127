"""Data that are the arrays that networks see."""

import numpy as np

from sbm_jax.formats.base import Format


class ArrayFormat(Format):
    """Nothing is converted."""

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return the values."""
        del where
        return values

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return the array."""
        return array
