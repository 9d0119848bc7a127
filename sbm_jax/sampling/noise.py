"""Random draws that leave rows independent of each other."""

import jax
import jax.numpy as jnp

from sbm_jax.types import Array, Key


def row_normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Draw standard normal noise, float32, with one key per row.

    Row i depends on the key and on i only, so that a sample does not change when rows are added to its batch.

    Args:
      key: a typed key.
      shape: [B, ...].
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(shape[0]))
    return jax.vmap(lambda row_key: jax.random.normal(row_key, shape[1:]))(keys)
