"""Random draws with an independent key per row."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int
from jaxtyping import Key as TypedKeys

from sbm_jax.types import Array


def row_keys(key: TypedKeys[Array, ""], rows: Int[Array, " B"]) -> TypedKeys[Array, " B"]:
    """Return one key per row, which depends only on `key` and the row's number.

    Args:
      key: a typed key.
      rows: the number of each row in the whole batch.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def row_normal(
    key: TypedKeys[Array, ""], shape: tuple[int, ...], rows: Int[Array, " {shape[0]}"] | None = None
) -> Float[Array, "..."]:
    """Draw standard normal noise, float32, with one key per row.

    A row's noise does not change when rows are added to the batch, or when the batch is split into chunks.

    Args:
      key: a typed key.
      shape: (B, ...).
      rows: the number of each row in the whole batch; None for 0 to B - 1.
    """
    keys = row_keys(key, jnp.arange(shape[0]) if rows is None else rows)
    return jax.vmap(lambda row_key: jax.random.normal(row_key, shape[1:]))(keys)
