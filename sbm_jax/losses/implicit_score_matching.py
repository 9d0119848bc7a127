"""Score matching without noise: the objective of EB-MVAE."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.types import Array, Key

TRACES = ("exact", "hutchinson", "sliced")


def implicit_score_terms(
    score_fn: Callable[[Array], Array], key: Key, z: Array, valid: np.ndarray, trace: str
) -> Array:
    """Return tr ∇s(z) + ½ ‖s(z)‖² for each row [B] (Eq. 1 with S = s = -∇E).

    ``exact`` takes one directional derivative for each entry of z, in a loop; ``hutchinson`` a random one, vᵀ∇s v with
    v = ±1, which has the same mean; ``sliced`` projects the square too, ½ (vᵀs)² with v ~ N(0, I).

    Args:
      score_fn: `z [B, N, D] -> [B, N, D]`, row by row, 0 on padding.
      key: for the random directions.
      z: latents [B, N, D].
      valid: bool [N, D], False on padding.
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
