"""MoPoE, the bound whose posterior is a mixture of products of experts. For shapes, see `losses.bounds`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sbm_jax.distributions import product_of_experts, standard_normal_kl
from sbm_jax.losses.bounds import EXPERT_EPS, BoundTerms, Decoding, all_subsets, sum_present
from sbm_jax.types import Array


class PrivateLatents(NamedTuple):
    """Private Gaussian latents of the modalities, which their decoders take in addition to the joint one.

    Attributes:
      mean: posterior means [B, M, D'].
      log_variance: posterior log variances [B, M, D'].
      noise: standard normal [M, B, D'].
      beta: β', weight of their KL divergence relative to that of the joint latent.
    """

    mean: Array
    log_variance: Array
    noise: Array
    beta: float


def mopoe_terms(
    mean: Float[Array, "B M D"],
    log_variance: Float[Array, "B M D"],
    decoding: Decoding,
    noise: Float[Array, "B D"],
    row_subset: Int[Array, " B"],
    beta: Array | float,
    present: Bool[Array, "B M"] | None = None,
    subsets: Bool[np.ndarray, "S M"] | None = None,
    private: PrivateLatents | None = None,
    chunk: int = 16,
) -> BoundTerms:
    """Return the terms of MoPoE: one latent per row, from one subset's product, and the KL of all 2^M - 1 subsets.

    L_b = Σ_m -r_m log p(x_m | z_b) + β mean_S KL(q_S ‖ N(0, I)), z_b ~ q_{S(b)}, over the subsets that a row has.
    Private latents w_m make the likelihood log p(x_m | z_b, w_m) and add β β' Σ_m KL(q_m ‖ N(0, I)). The prior is an
    expert of the full set only. One matrix product with the subset masks gives the precisions of all subsets, in chunks
    that are recomputed for the gradient: the 1,023 subsets of ten modalities do not fit in memory.

    With single-modality subsets only, this is the mixture of Gaussian experts of the SBM paper's MMVAE.

    Args:
      mean: means of the experts.
      log_variance: log variances of the experts.
      decoding: see `Decoding`.
      noise: standard normal.
      row_subset: index in `subsets` of the subset S(b) that each row is decoded from.
      beta: β, weight of the KL divergences.
      present: the modalities that each row has; None if nothing is missing.
      subsets: the members of each; None for `all_subsets`.
      private: see `PrivateLatents`; None for none.
      chunk: number of subsets computed at a time.

    Reference: T. Sutter, I. Daunhawer and J. Vogt, "Generalized Multimodal ELBO", 2021.
      https://arxiv.org/abs/2105.02470
    """
    batch, num_modalities, _ = mean.shape
    subsets = all_subsets(num_modalities) if subsets is None else subsets
    missing = present is not None
    present = jnp.ones((batch, num_modalities), bool) if present is None else present
    full = jnp.asarray(subsets.all(axis=1))
    members = jnp.asarray(subsets)[row_subset]
    row_mean, row_log_variance = product_of_experts(mean, log_variance, members, eps=EXPERT_EPS, prior=full[row_subset])
    z = row_mean + jnp.exp(0.5 * row_log_variance) * noise
    latents: Array | dict[str, Array] = z
    if private is not None:
        own = jnp.moveaxis(private.mean, 1, 0) + jnp.exp(0.5 * jnp.moveaxis(private.log_variance, 1, 0)) * private.noise
        names = [modality.name for modality in decoding.modalities]
        latents = {name: jnp.concatenate([z, w], axis=-1) for name, w in zip(names, own, strict=True)}
    likelihood = sum_present(decoding.log_likelihood(latents), present)
    # Always a float32 probability, as in MultiVae, so that float64 losses agree with its own to 1e-9.
    at_hand = subsets_at_hand(subsets, present)
    number = at_hand.sum(axis=1).astype(jnp.float32)
    weight = (1.0 / jnp.maximum(number, 1.0)).astype(mean.dtype) if missing else 1.0 / len(subsets)
    divergence = weight * _subset_kl(mean, log_variance, subsets, at_hand, chunk)
    if private is not None:
        own_divergence = sum_present(standard_normal_kl(private.mean, private.log_variance), present)
        divergence = divergence + private.beta * own_divergence
    return BoundTerms(-likelihood, beta * divergence)


def subsets_at_hand(subsets: Bool[np.ndarray, "S M"], present: Bool[Array, "B M"]) -> Bool[Array, "B S"]:
    """Return whether each row has all modalities of each subset."""
    lacking = (~present).astype(jnp.float32) @ jnp.asarray(subsets, jnp.float32).T
    return lacking == 0


def _subset_kl(
    mean: Float[Array, "B M D"],
    log_variance: Float[Array, "B M D"],
    subsets: Bool[np.ndarray, "S M"],
    at_hand: Bool[Array, "B S"],
    chunk: int,
) -> Float[Array, " B"]:
    """Return Σ_S KL(q_S ‖ N(0, I)) over the subsets that each row has (`at_hand`).

    With T = Σ_{m ∈ S} T_m and W = Σ_{m ∈ S} T_m μ_m, the divergence is ½ Σ_d (W² / T² + 1 / T - 1 + log T). It
    takes two matrix products for all rows and entries, and one logarithm, which the gradient does not recompute.
    """
    chunks, is_subset = _in_chunks(subsets, chunk)
    padded = jnp.pad(at_hand, ((0, 0), (0, is_subset.size - len(subsets))))
    has = jnp.moveaxis(padded, 1, 0).reshape(*is_subset.shape, len(mean))
    own = 1.0 / (jnp.exp(log_variance) + EXPERT_EPS)
    precisions, weighted = (jnp.moveaxis(array, 1, 0).reshape(mean.shape[1], -1) for array in (own, own * mean))

    @jax.checkpoint
    def part(total: Array, chosen: tuple[Array, Array]) -> tuple[Array, None]:
        members, has = chosen
        add = functools.partial(jnp.matmul, members.astype(mean.dtype), precision="highest")
        prior = jnp.where(members.all(axis=-1) | ~members.any(axis=-1), 1.0 / (1.0 + EXPERT_EPS), 0.0)
        precision = add(precisions) + prior.astype(mean.dtype)[:, None]
        variance = 1.0 / precision
        terms = jnp.square(add(weighted) * variance) + variance - 1.0 + jnp.log(precision)
        divergence = 0.5 * terms.reshape(*has.shape, -1).sum(axis=-1)
        return total + jnp.where(has, divergence, 0.0).sum(axis=0), None

    total, _ = jax.lax.scan(part, jnp.zeros(len(mean), mean.dtype), (chunks, has))
    return total


def mixture_of_products_log_prob(
    z: Float[Array, "B S D"],
    mean: Float[Array, "B M D"],
    log_variance: Float[Array, "B M D"],
    subsets: Bool[np.ndarray, "P M"],
    eps: float,
    has_prior: Callable[[Array], Array],
    chunk: int = 64,
) -> Float[Array, "B S"]:
    """Return the log density of latents under a uniform mixture of products of experts.

    Args:
      z: latents.
      mean: means of the experts.
      log_variance: log variances of the experts.
      subsets: the members of each product.
      eps: added to each expert's variance.
      has_prior: `bool [..., M] -> bool [...]`, whether N(0, I) is an additional expert of a product.
      chunk: number of products computed at a time.
    """
    chunks, is_product = _in_chunks(subsets, chunk)

    def part(total: Array, chosen: tuple[Array, Array]) -> tuple[Array, None]:
        members, counted = chosen
        location, log_scale = product_of_experts(
            mean[:, None], log_variance[:, None], members[None], eps=eps, prior=has_prior(members[None])
        )
        distance = jax.lax.map(  # one product at a time: [B, S, P, D] does not fit in memory
            lambda one: (jnp.square(z - one[0][:, None]) * jnp.exp(-one[1])[:, None]).sum(axis=-1),
            (jnp.moveaxis(location, 1, 0), jnp.moveaxis(log_scale, 1, 0)),
        )
        constants = (log_scale + jnp.log(2 * jnp.pi)).sum(axis=-1)
        terms = -0.5 * (jnp.moveaxis(distance, 0, -1) + constants[:, None])
        terms = jnp.where(counted, terms, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

    total, _ = jax.lax.scan(part, jnp.full(z.shape[:2], -jnp.inf), (chunks, is_product))
    return total - jnp.log(len(subsets))


def _in_chunks(subsets: Bool[np.ndarray, "P M"], chunk: int) -> tuple[Bool[Array, "C chunk M"], Bool[Array, "C chunk"]]:
    """Split subsets, bool [P, M], into [C, chunk, M], and return bool [C, chunk], False on the last chunk's padding."""
    chunk = min(chunk, len(subsets))
    padding = -len(subsets) % chunk
    padded = np.pad(subsets, ((0, padding), (0, 0))).reshape(-1, chunk, subsets.shape[1])
    return jnp.asarray(padded), jnp.asarray(np.arange(padded.shape[0] * chunk) < len(subsets)).reshape(-1, chunk)
