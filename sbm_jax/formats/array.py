"""Data that are the arrays that networks see, but for the axis of a single channel."""

import numpy as np

from sbm_jax.formats.base import Format


class ArrayFormat(Format):
    """Nothing is converted."""

    passes_arrays = True

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return the values; a last axis of size 1 is added where it is lacking."""
        del where
        return self.with_axis(values) if self.lacks_axis else values

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return the array, without the axis that users' rows lack."""
        return self.like_rows(array)
