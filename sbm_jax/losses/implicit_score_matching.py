"""Implicit score matching, which needs no noise: the objective of EB-MVAE."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sbm_jax.types import Array, Key

TRACES = ("exact", "hutchinson", "sliced")


def implicit_score_terms(
    score_fn: Callable[[Array], Array],
    key: Key,
    z: Float[Array, "B N D"],
    valid: Bool[np.ndarray, "N D"],
    trace: str,
) -> Float[Array, " B"]:
    """Return the implicit score-matching loss tr ∇s(z) + ½ ‖s(z)‖² of each row (Eq. 1 with S = s = -∇E).

    ``exact`` loops over one directional derivative for each entry of z; ``hutchinson`` estimates the trace without bias
    by vᵀ∇s v with random signs v; ``sliced`` projects the square as well, ½ (vᵀs)² with v ~ N(0, I).

    Args:
      score_fn: `z [B, N, D] -> [B, N, D]`, independent across rows and 0 on padding.
      key: typed key for the random directions; unused by ``exact``.
      z: latents.
      valid: False on padding.
      trace: one of `TRACES`.

    References:
      A. Hyvärinen, "Estimation of Non-Normalized Statistical Models by Score Matching", 2005, Theorem 1.
      Y. Song et al., "Sliced Score Matching", 2019, Eq. 7. https://arxiv.org/abs/1905.07088
    """
    if trace == "exact":
        score = score_fn(z)
        entries = jnp.asarray(np.argwhere(valid))

        def derivative(total: Array, entry: Array) -> tuple[Array, None]:
            direction = jnp.zeros(z.shape[1:]).at[entry[0], entry[1]].set(1.0)
            _, change = jax.jvp(score_fn, (z,), (jnp.broadcast_to(direction, z.shape),))
            return total + change[:, entry[0], entry[1]], None

        divergence, _ = jax.lax.scan(derivative, jnp.zeros(len(z)), entries)
        return divergence + 0.5 * jnp.square(score).sum(axis=(1, 2))
    draw = jax.random.rademacher if trace == "hutchinson" else jax.random.normal
    direction = jnp.where(jnp.asarray(valid)[None], draw(key, z.shape).astype(z.dtype), 0.0)
    score, change = jax.jvp(score_fn, (z,), (direction,))
    divergence = jnp.sum(direction * change, axis=(1, 2))
    if trace == "hutchinson":
        return divergence + 0.5 * jnp.square(score).sum(axis=(1, 2))
    return divergence + 0.5 * jnp.square(jnp.sum(direction * score, axis=(1, 2)))
