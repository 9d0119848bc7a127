"""Masked means."""

import jax.numpy as jnp

from sbm_jax.types import Array


def masked_mean(values: Array, mask: Array | None) -> Array:
    """Return the scalar mean of the values where a bool mask of the same shape is True; 0 if it is True nowhere.

    Without a mask, return the mean of all values.
    """
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
