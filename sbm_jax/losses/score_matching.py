"""Denoising score matching on joint latents with a time for each modality."""

from collections.abc import Callable
from typing import no_type_check

import chex
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from sbm_jax.errors import unknown
from sbm_jax.sde import SDE
from sbm_jax.tokens import Owner, num_modalities, sum_by_modality
from sbm_jax.types import Array, Context, Key

MIN_TIME = 1e-5
"""Smallest training time, as in the authors' code: the score diverges at t = 0."""


@no_type_check  # the leaves of a pytree may be other than arrays, as under `jax.eval_shape`
class Draws(flax.struct.PyTreeNode):
    """The random draws of one batch, injectable so that a test can replay them.

    Attributes:
      time: [B], the time of the unobserved modalities.
      noise: [B, N, D], standard normal.
      observed: bool [B, M], True = clean, with time 0 and without loss.
      alone: bool [B] or None (no row): rows in which the network sees each modality alone, to learn its marginal
        score; nothing is observed in them.
    """

    time: Array
    noise: Array
    observed: Array
    alone: Array | None = None


def random_observed(
    key: Key,
    batch: int,
    num_modalities: int,
    probability_none: float,
    present: Bool[Array, "{batch} {num_modalities}"] | None = None,
) -> Bool[Array, "{batch} {num_modalities}"]:
    """Draw an observed set for each row.

    With probability `probability_none` the set is empty; otherwise its size is uniform in 1..M-1 and the set uniform
    among those of that size. Rows that lack modalities (`present`) draw in the same way from their own.
    """
    none_key, size_key, rank_key = jax.random.split(key, 3)
    none = jax.random.bernoulli(none_key, probability_none, (batch, 1))
    order = jax.random.uniform(rank_key, (batch, num_modalities))
    if present is None:
        sizes = jax.random.randint(size_key, (batch, 1), 1, max(num_modalities, 2))
        none = none | (num_modalities == 1)
    else:
        count = present.sum(axis=1, keepdims=True)
        sizes = jax.random.randint(size_key, (batch, 1), 1, jnp.maximum(count, 2))
        order, none = jnp.where(present, order, 2.0), none | (count < 2)
    ranks = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
    return (ranks < sizes) & ~none


def random_present(key: Key, observed: Bool[Array, "B M"], probability: float) -> Bool[Array, "B M"]:
    """Draw which modalities are present: all of them in rows with an observed modality.

    Each of the other rows loses a random set of 1 to M - 1 modalities with the given probability. Training on such rows
    teaches a network the scores of all marginal distributions, against which guidance compares the conditional ones.
    """
    drop_key, set_key = jax.random.split(key)
    batch, num_modalities = observed.shape
    absent = random_observed(set_key, batch, num_modalities, 0.0)
    dropped = jax.random.bernoulli(drop_key, probability, (batch, 1)) & ~observed.any(axis=1, keepdims=True)
    return ~(absent & dropped)


def stratified_times(key: Key, batch: int) -> Float[Array, " {batch}"]:
    """Draw training times, one in each of B equal strata of [MIN_TIME, 1], in random order.

    Each row's time is uniform, and the batch mean has a lower variance than with independent draws.
    """
    order_key, place_key = jax.random.split(key)
    strata = (jax.random.permutation(order_key, batch) + jax.random.uniform(place_key, (batch,))) / batch
    return MIN_TIME + (1.0 - MIN_TIME) * strata


def draw(
    key: Key,
    shape: tuple[int, ...],
    probability_none: float,
    probability_alone: float = 0.0,
    present: Bool[Array, "B M"] | None = None,
    owner: Owner = (),
) -> Draws:
    """Draw the time, the noise and the observed set of each row of a batch [B, N, D]; see `random_observed`."""
    time_key, noise_key, set_key = jax.random.split(key, 3)
    batch, modalities = shape[0], num_modalities(owner, shape[1])
    observed, alone = random_observed(set_key, batch, modalities, probability_none, present), None
    if probability_alone:
        alone = jax.random.bernoulli(jax.random.fold_in(key, 3), probability_alone, (batch,))
        observed = observed & ~alone[:, None]
    return Draws(stratified_times(time_key, batch), jax.random.normal(noise_key, shape), observed, alone)


def _noise_weight(sde: SDE, t: Array) -> Array:
    del sde
    return jnp.ones_like(t)


def _velocity_weight(sde: SDE, t: Array) -> Array:
    alpha, sigma = sde.marginal(t)
    return (alpha**2 + sigma**2) / jnp.maximum(alpha, 1e-4) ** 2


def _unit_weight(sde: SDE, t: Array) -> Array:
    return 1.0 / sde.marginal(t)[1] ** 2


def _likelihood_weight(sde: SDE, t: Array) -> Array:
    return sde.diffusion_squared(t) / sde.marginal(t)[1] ** 2


def _data_weight(sde: SDE, t: Array) -> Array:
    alpha, sigma = sde.marginal(t)
    return (sigma / jnp.maximum(alpha, 1e-4)) ** 2


MIN_SNR = 5.0
"""γ of ``"min_snr"``, the authors' value."""


def _min_snr_weight(sde: SDE, t: Array) -> Array:
    return jnp.minimum(1.0, MIN_SNR * _data_weight(sde, t))


WEIGHTINGS: dict[str, Callable[[SDE, Array], Array]] = {
    "noise": _noise_weight,
    "velocity": _velocity_weight,
    "unit": _unit_weight,
    "likelihood": _likelihood_weight,
    "data": _data_weight,
    "min_snr": _min_snr_weight,
}
"""λ(t) / σ², the weight of the squared error of ε̂, by name.

``noise`` is λ = σ² (the authors' code), ``unit`` λ = 1 (the paper's text) and ``likelihood`` λ = g². ``velocity`` gives
the squared error of v = (α ε - σ z_0) / s with s² = α² + σ², ``data`` that of z_0, and ``min_snr`` min(SNR, 5) times
that of z_0, with SNR = α² / σ².

Reference: T. Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
  https://arxiv.org/abs/2303.09556
"""


def denoising_terms(
    noise_fn: Callable[[Array, Array, Context], Array],
    sde: SDE,
    z: Float[Array, "B N *entry"],
    context: Context,
    draws: Draws,
    weighting: str,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return the weighted and the unweighted squared error of the predicted noise, per row.

    L = λ(t) ‖s_θ(z_t, t) - ∇ log p_0t(z_t | z_0)‖² = λ(t) / σ_t² ‖ε̂ - ε‖² (Eq. 4), averaged over the entries of each
    modality that carries loss (neither observed nor absent; padding never counts), then over these modalities, so that
    a short latent weighs as much as a long one. Absent modalities are filled with noise.

    Args:
      noise_fn: `(z_t [B, N, D], t [B, M], context) -> ε̂ [B, N, D]`.
      sde: the forward process.
      z: clean latents [B, N, D], or data.
      context: `valid`, `owner` and `present`; the drawn `observed` replaces its own.
      draws: see `Draws`.
      weighting: a key of `WEIGHTINGS`.

    Raises:
      SbmError: if the weighting is unknown.
    """
    if weighting not in WEIGHTINGS:
        raise unknown("weighting", weighting, WEIGHTINGS)
    chex.assert_equal_shape([z, draws.noise])
    chex.assert_shape(context.valid, z.shape[1:])
    chex.assert_shape(draws.observed, (len(z), num_modalities(context.owner, z.shape[1])))
    observed = draws.observed
    if context.present is not None:
        observed = observed & context.present
    context = context.replace(observed=observed)
    t = jnp.where(observed, 0.0, draws.time[:, None])
    alpha, sigma = (context.spread(value) for value in sde.marginal(t))
    z_t = alpha * z + sigma * draws.noise
    if context.present is not None:
        z_t = jnp.where(context.spread(context.present), z_t, draws.noise)
    z_t = jnp.where(context.valid[None], jnp.where(context.spread(observed), z, z_t), 0.0)

    counted = context.free if context.present is None else context.free & context.spread(context.present)
    if draws.alone is not None:
        present = jnp.ones_like(observed) if context.present is None else context.present
        context = context.replace(present=present & ~draws.alone[:, None])
    squared = jnp.where(counted, jnp.square(noise_fn(z_t, t, context) - draws.noise), 0.0)
    total, count = (_sums(values, context.owner) for values in (squared, counted))
    per_modality = total / jnp.maximum(count, 1)
    error = per_modality.sum(axis=1) / jnp.maximum((count > 0).sum(axis=1), 1)
    return WEIGHTINGS[weighting](sde, draws.time) * error, error


def _sums(values: Array, owner: Owner) -> Array:
    """Sum values [B, N, ...] over the entries of each modality: [B, M]."""
    return sum_by_modality(values.sum(axis=tuple(range(2, values.ndim))), owner)
