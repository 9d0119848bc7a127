"""Computes large batches in chunks of rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_chunks(function: Callable[[Any], Any], arrays: Any, largest: int) -> Any:
    """Return `function(arrays)`, computed in sequential chunks of rows.

    On a CPU, a small network runs up to 1.5 times as fast when its activations stay in the caches.

    Args:
      function: maps a pytree of arrays [n, ...] to a pytree of arrays [n, ...], row by row, and scalars, which must not
        depend on the rows.
      arrays: a pytree of arrays [B, ...].
      largest: maximum rows per chunk; 0 for all rows at once. Chunks have equal sizes, with fewer padding rows in total
        than there are chunks.
    """
    rows = len(jax.tree.leaves(arrays)[0])
    num_chunks = -(-rows // largest) if largest else 1
    if num_chunks == 1:
        return function(arrays)
    size = -(-rows // num_chunks)
    padding = num_chunks * size - rows

    def cut(array):
        padded = jnp.concatenate([array, array[:padding]])
        return padded.reshape(num_chunks, size, *array.shape[1:])

    def join(array):
        return array[0] if array.ndim == 1 else array.reshape(-1, *array.shape[2:])[:rows]

    return jax.tree.map(join, jax.lax.map(function, jax.tree.map(cut, arrays)))
