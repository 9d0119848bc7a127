"""Random draws that leave rows independent of each other."""

import jax
import jax.numpy as jnp

from sbm_jax.types import Array, Key


def row_keys(key: Key, rows: Array) -> Key:
    """Return one key per row, [B], that depends on `key` and on the number of the row only.

    Args:
      key: a typed key.
      rows: int [B], the number of each row in the whole batch.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def row_normal(key: Key, shape: tuple[int, ...], rows: Array | None = None) -> Array:
    """Draw standard normal noise, float32, with one key per row.

    A row does not change when rows are added to its batch, or when the batch is cut into chunks.

    Args:
      key: a typed key.
      shape: [B, ...].
      rows: int [B], the number of each row in the whole batch; 0 to B - 1 where None.
    """
    keys = row_keys(key, jnp.arange(shape[0]) if rows is None else rows)
    return jax.vmap(lambda row_key: jax.random.normal(row_key, shape[1:]))(keys)
