"""Rows in batches of one size."""

from collections.abc import Iterator

import numpy as np


def in_units(values: np.ndarray) -> np.ndarray:
    """Return data as networks see them: uint8 as float32 in [0, 1]; float32, and int32, which are ids, as they are."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


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


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Return which rows [B, *shape] are finite, bool [B]; ids of a sample that diverged are -1."""
    values = np.asarray(values)
    good = values >= 0 if values.dtype.kind == "i" else np.isfinite(values)
    return good.reshape(len(values), -1).all(axis=1)
