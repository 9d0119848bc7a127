"""Divides rows into batches of one size."""

from collections.abc import Iterator

import numpy as np


def in_units(values: np.ndarray) -> np.ndarray:
    """Return data as networks see them: uint8 as float32 in [0, 1]; float32, and int32 ids, unchanged."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def batches(num_rows: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (indices int [batch_size], number of rows that are not padding); index 0 pads the last batch."""
    for start in range(0, num_rows, batch_size):
        count = min(batch_size, num_rows - start)
        indices = np.zeros(batch_size, np.int64)
        indices[:count] = np.arange(start, start + count)
        yield indices, count


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return the number of batches that hold `num_rows` rows; the last one may be padded."""
    return -(-num_rows // batch_size)


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Return whether each row of [B, *shape] is finite, bool [B]; a diverged sample of ids holds -1."""
    values = np.asarray(values)
    good = values >= 0 if values.dtype.kind == "i" else np.isfinite(values)
    return good.reshape(len(values), -1).all(axis=1)
