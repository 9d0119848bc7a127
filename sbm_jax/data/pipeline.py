"""Batches: the rows that each step uses, as a function of the step alone, and their conversion for networks."""

import functools

import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.types import Array, Data


def in_units(data: Data) -> dict[str, Array | np.ndarray]:
    """Return data as networks see them: uint8 as float32 in [0, 1]; float32, and int32 ids, unchanged."""
    return {
        name: values.astype(jnp.float32) / 255.0 if values.dtype == jnp.uint8 else values
        for name, values in data.items()
    }


def batch_rows(num_rows: int, batch_size: int, seed: int, first_step: int, num_steps: int) -> np.ndarray:
    """Return the row indices of consecutive batches, reshuffled in each epoch.

    They depend only on the step, so that a resumed run equals an uninterrupted one. The rows of all steps form one
    sequence: the concatenated permutations of all epochs, each drawn from (seed, epoch). A batch at the end of an
    epoch continues into the next, so that all rows are used equally often.

    Args:
      num_rows: N, the number of rows.
      batch_size: B, rows per step.
      seed: non-negative integer.
      first_step: step of the first batch, from 0.
      num_steps: number of batches.

    Returns:
      int32 [num_steps, batch_size], values in [0, N).

    Raises:
      SbmError: if there are fewer rows than a batch needs.
    """
    if not 1 <= batch_size <= num_rows:
        raise SbmError(
            f"the batch size is {batch_size}, but the data have {num_rows} rows; expected a batch of 1 to "
            f"{num_rows}. Lower the batch size or use more data."
        )
    first, last = first_step * batch_size, (first_step + num_steps) * batch_size
    epochs = range(first // num_rows, -(-last // num_rows))
    rows = np.concatenate([np.empty(0, np.int32), *(_shuffled(num_rows, seed, epoch) for epoch in epochs)])
    start = first - epochs.start * num_rows
    return rows[start : start + last - first].reshape(num_steps, batch_size)


@functools.lru_cache(maxsize=4)  # consecutive steps mostly share an epoch
def _shuffled(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the rows in an epoch, read-only int32 [N]."""
    order = np.random.default_rng([seed, epoch]).permutation(num_rows).astype(np.int32)
    order.flags.writeable = False
    return order
