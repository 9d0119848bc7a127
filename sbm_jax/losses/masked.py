"""Masked means."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sbm_jax.types import Array


def masked_mean(values: Float[Array, "*shape"], mask: Bool[Array | np.ndarray, "*shape"] | None) -> Float[Array, ""]:
    """Return the mean of the values where the mask is True; 0 if it is True nowhere.

    Without a mask, return the mean of all values.
    """
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
