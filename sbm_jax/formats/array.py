"""Data stored as the arrays that networks see, possibly without the axis of a single channel."""

import numpy as np

from sbm_jax.formats.base import Format


class ArrayFormat(Format):
    """Arrays that need no conversion."""

    passes_arrays = True

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return the values, with a last axis of size 1 added where users' rows lack it."""
        del where
        return self.with_axis(values) if self.lacks_axis else values

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return the array, without the last axis where users' rows lack it."""
        return self.like_rows(array)
