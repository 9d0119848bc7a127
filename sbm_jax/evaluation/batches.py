"""Rows in batches of one size."""

from collections.abc import Iterator

import numpy as np


def as_float(values: np.ndarray) -> np.ndarray:
    """Return data as float32, uint8 images in [0, 1]."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32)


def batches(num_rows: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (indices [batch_size], number of real ones): the last batch is padded with index 0."""
    for start in range(0, num_rows, batch_size):
        count = min(batch_size, num_rows - start)
        indices = np.zeros(batch_size, np.int64)
        indices[:count] = np.arange(start, start + count)
        yield indices, count


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return how many padded batches hold `num_rows` rows."""
    return -(-num_rows // batch_size)
