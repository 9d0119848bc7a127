"""Guidance: transforms of score functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError, unknown
from sbm_jax.sampling.noise import row_normal
from sbm_jax.types import Array, Context, Key, ScoreFn, ScoreTransform

PairEnergyFn = Callable[[Array, Array, Array], Array]

PAIRS = ("random", "all")


def energy_guidance(energy_fn: PairEnergyFn, strength: Array | float, pairs: str = "random") -> ScoreTransform:
    """Return the transform s̃(z_u) = s(z_u) - γ ∇_{z_u} E(z_o, z_u) (SBM paper: Eq. 8).

    The authors differentiate the mean over a batch of 256, so their γ of 1000 and 2000 correspond to 3.9 and 7.8 here,
    where each row has its own gradient.

    Args:
      energy_fn: `(z [B, N, D], t [B, M], pairs int [B, P, 2]) -> [B, P]`, the energy of each pair of an observed and an
        unobserved modality.
      strength: γ, a scalar or one value per row [B].
      pairs: ``"random"`` draws one pair per row at every evaluation; ``"all"`` sums over all pairs.

    Raises:
      SbmError: on an unknown choice of pairs, or, when the transform is applied, on a strength of the wrong shape.
    """
    if pairs not in PAIRS:
        raise unknown("choice of pairs", pairs, PAIRS)

    def transform(score_fn: ScoreFn, context: Context) -> ScoreFn:
        observed, present = context.observed, context.present
        given = observed if present is None else observed & present
        missing = ~observed if present is None else ~observed & present
        allowed = given[:, :, None] & missing[:, None, :]
        weight = per_row(strength, context)

        def energy(z: Array, t: Array, chosen: Array, counted: Array) -> Array:
            return jnp.sum(jnp.where(counted, energy_fn(z, t, chosen), 0.0))

        def guided(key: Key, z: Array, t: Array) -> Array:
            score_key, pair_key = jax.random.split(key)
            chosen, counted = _choose(pair_key, allowed, pairs, context.row_numbers)
            gradient = jax.grad(energy)(z, t, chosen, counted)
            return score_fn(score_key, z, t) - weight * jnp.where(context.free, gradient, 0.0)

        return guided

    return transform


def _choose(key: Key, allowed: Array, pairs: str, rows: Array | None) -> tuple[Array, Array]:
    """Choose pairs of modalities: int [B, P, 2], and bool [B, P], True for those in `allowed`, bool [B, M, M]."""
    batch, num_modalities, _ = allowed.shape
    flat = allowed.reshape(batch, -1)
    every = np.stack(np.divmod(np.arange(num_modalities**2), num_modalities), axis=-1)
    if pairs == "all":
        return jnp.broadcast_to(every[None], (batch, *every.shape)), flat
    # Each of several independent draws is equally likely to be the largest.
    chosen = jnp.argmax(jnp.where(flat, row_normal(key, flat.shape, rows), -jnp.inf), axis=1)
    return jnp.asarray(every)[chosen][:, None], flat.any(axis=1, keepdims=True)


def classifier_free(unconditional_fn: ScoreFn, strength: Array | float) -> ScoreTransform:
    """Return the transform (1 + w) s(z | o) - w s(z); w = 0 leaves the conditional score unchanged.

    Args:
      unconditional_fn: s(z), the score of the unobserved entries when nothing is observed.
      strength: w, a scalar or one value per row [B].

    Reference: J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022, Eq. 6.
      https://arxiv.org/abs/2207.12598
    """

    def transform(score_fn: ScoreFn, context: Context) -> ScoreFn:
        weight = per_row(strength, context)

        def guided(key: Key, z: Array, t: Array) -> Array:
            conditional = score_fn(key, z, t)
            difference = conditional - unconditional_fn(key, z, t)
            return conditional + weight * jnp.where(context.free, difference, 0.0)

        return guided

    return transform


def per_row(strength: Array | float, context: Context) -> Array:
    """Reshape a strength, scalar or [B], to [B or 1, 1, ...], which broadcasts against the sampled arrays.

    Raises:
      SbmError: if the strength has another shape.
    """
    strength, num_rows = jnp.asarray(strength, jnp.float32), len(context.observed)
    if strength.shape not in ((), (num_rows,)):
        raise SbmError(f"guidance: strength must be a number or one for each of {num_rows} rows, not {strength.shape}.")
    return strength.reshape(-1, *(1,) * context.valid.ndim)
