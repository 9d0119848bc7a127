"""Means over what is there."""

import jax.numpy as jnp

from sbm_jax.types import Array


def masked_mean(values: Array, mask: Array | None) -> Array:
    """Return the mean of the values where the mask, of the same shape, is True, a scalar; 0 where it never is.

    Without a mask it is the mean of all.
    """
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
