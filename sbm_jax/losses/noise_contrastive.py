"""Noise-contrastive estimation of the energy of pairs of latents."""

from collections.abc import Callable
from typing import no_type_check

import chex
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from sbm_jax.losses.score_matching import stratified_times
from sbm_jax.sde import SDE
from sbm_jax.tokens import Owner, by_token, num_modalities
from sbm_jax.types import Array, Key

EnergyFn = Callable[[Array, Array, Array, Array, Array], Array]


@no_type_check  # the leaves of a pytree may be other than arrays, as under `jax.eval_shape`
class PairDraws(flax.struct.PyTreeNode):
    """The random draws of one batch, injectable so that a test can replay them.

    Attributes:
      pair: int [B, 2], two different modalities: the observed one, then the unobserved one.
      time: [B], the time of the unobserved modality.
      clean: bool [B], True if the observed modality is clean (time 0); otherwise it shares `time`.
      noise: [3, B, N, D], standard normal, for the observed, the unobserved and the negative latents.
      shift: int scalar, 1 to B - 1: the negative of row b is the unobserved modality of row b + shift.
    """

    pair: Array
    time: Array
    clean: Array
    noise: Array
    shift: Array


def draw_pairs(
    key: Key,
    shape: tuple[int, int, int],
    probability_clean: float,
    present: Bool[Array, "B M"] | None = None,
    owner: Owner = (),
) -> PairDraws:
    """Draw pairs, times, noise and negatives for a batch of latents [B, N, D].

    Rows that lack modalities (`present`) draw their pair from those that they have; see `usable`.
    """
    pair_key, time_key, clean_key, noise_key, shift_key = jax.random.split(key, 5)
    batch, num_tokens, _ = shape
    order = jax.random.uniform(pair_key, (batch, num_modalities(owner, num_tokens)))
    ranks = jnp.argsort(order if present is None else jnp.where(present, order, 2.0), axis=1)
    return PairDraws(
        pair=ranks[:, :2],
        time=stratified_times(time_key, batch),
        clean=jax.random.bernoulli(clean_key, probability_clean, (batch,)),
        noise=jax.random.normal(noise_key, (3, *shape)),
        shift=jax.random.randint(shift_key, (), 1, batch),
    )


def usable(draws: PairDraws, present: Bool[Array, "B M"] | None) -> Bool[Array, " B"] | None:
    """Return True for rows that have their pair and whose negative exists; None if nothing is missing."""
    if present is None:
        return None
    own = jnp.take_along_axis(present, draws.pair, axis=1).all(axis=1)
    negative = jnp.roll(present, -draws.shift, axis=0)
    return own & jnp.take_along_axis(negative, draws.pair[:, 1:], axis=1)[:, 0]


def noise_contrastive_terms(
    energy_fn: EnergyFn,
    sde: SDE,
    z: Float[Array, "B N D"],
    z_negative: Float[Array, "B N D"],
    valid: Bool[Array, "N D"],
    draws: PairDraws,
    gaussian_weight: float,
    owner: Owner = (),
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return the loss of each row and whether it classifies both of its pairs correctly (0 or 1).

    L = log(1 + exp E(z_o, z_u)) + (1 - w) log(1 + exp -E(z_o, z_n)) + w log(1 + exp -E(z_o, z_g)) (Eq. 7, on
    the diffused latents that the energy is evaluated at), with z_n from another row and z_g Gaussian. For w = 0 the
    minimiser is E = -log p(z_o, z_u) / (p(z_o) p(z_u)).

    Args:
      energy_fn: `(observed [B, N, D], times [B, M], unobserved [B, N, D], times [B, M], pairs [B, 1, 2]) -> [B, 1]`.
      sde: the forward process.
      z: clean latents.
      z_negative: clean latents for the negatives. Draw every one as an unobserved latent of `z` is drawn,
        even if its own row observes it.
      valid: False on padding.
      draws: see `PairDraws`.
      gaussian_weight: w, the share of Gaussian negatives; 1/2 in the authors' code, 0 in their paper.
      owner: the modality of each token; () if every modality has one token.
    """
    chex.assert_rank(z, 3)
    chex.assert_shape(draws.noise, (3, *z.shape))
    times = jnp.broadcast_to(draws.time[:, None], (len(z), num_modalities(owner, z.shape[1])))
    observed_times = jnp.where(draws.clean[:, None], 0.0, times)

    def marginal(t: Array) -> tuple[Array, Array]:
        alpha, sigma = (by_token(value, owner)[:, :, None] for value in sde.marginal(t))
        return alpha, sigma

    def diffuse(clean: Array, t: Array, noise: Array) -> Array:
        alpha, sigma = marginal(t)
        return jnp.where(by_token(t > 0, owner)[:, :, None], alpha * clean + sigma * noise, clean)

    def energy(free: Array) -> Array:
        free = jnp.where(valid[None], free, 0.0)
        return energy_fn(observed, observed_times, free, times, draws.pair[:, None])[:, 0]

    observed = jnp.where(valid[None], diffuse(z, observed_times, draws.noise[0]), 0.0)
    positive = energy(diffuse(z, times, draws.noise[1]))
    negative = energy(diffuse(jnp.roll(z_negative, -draws.shift, axis=0), times, draws.noise[2]))
    loss = jax.nn.softplus(positive) + (1 - gaussian_weight) * jax.nn.softplus(-negative)
    if gaussian_weight > 0:
        alpha, sigma = marginal(times)
        loss += gaussian_weight * jax.nn.softplus(-energy(jnp.sqrt(alpha**2 + sigma**2) * draws.noise[2]))
    return loss, ((positive < 0) & (negative > 0)).astype(jnp.float32)
