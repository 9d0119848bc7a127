"""The bound whose posterior is a mixture of products of experts: MoPoE. Shapes are those of `losses.bounds`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.distributions import product_of_experts, standard_normal_kl
from sbm_jax.losses.bounds import EXPERT_EPS, BoundTerms, Decoding, all_subsets, sum_present
from sbm_jax.types import Array


class PrivateLatents(NamedTuple):
    """Gaussian latents of single modalities, which their decoders are given besides the joint one.

    Attributes:
      mean: [B, M, D'].
      log_variance: [B, M, D'].
      noise: standard normal [M, B, D'].
      beta: weight of their divergence, relative to that of the joint latent.
    """

    mean: Array
    log_variance: Array
    noise: Array
    beta: float


def mopoe_terms(
    mean: Array,
    log_variance: Array,
    decoding: Decoding,
    noise: Array,
    row_subset: Array,
    beta: Array | float,
    present: Array | None = None,
    subsets: np.ndarray | None = None,
    private: PrivateLatents | None = None,
    chunk: int = 16,
) -> BoundTerms:
    """Return the terms of MoPoE: a latent from one subset's product for each row, divergences of all 2^M - 1.

    L_b = Σ_m -r_m log p(x_m | z_b) + β mean_S KL(q_S ‖ N(0, I)), z_b ~ q_{S(b)}, over the subsets that a row has; with
    private latents w_m, -r_m log p(x_m | z_b, w_m) and β β' Σ_m KL(q_m ‖ N(0, I)) besides. The
    prior is an expert of the full set only. Precisions of all subsets are one product with the matrix of members, in
    chunks that are computed again for the gradient: 1,023 subsets of ten modalities do not lie in memory.

    With the subsets of one modality alone it is the mixture of Gaussian experts of the SBM paper's MMVAE.

    Args:
      mean: of the experts [B, M, D].
      log_variance: of the experts [B, M, D].
      decoding: see `Decoding`.
      noise: standard normal [B, D].
      row_subset: int [B], the row of `subsets` that each row is decoded from.
      beta: weight of the divergences.
      present: bool [B, M]; None where nothing is missing.
      subsets: bool [S, M]; None for `all_subsets`.
      private: see `PrivateLatents`; None without them.
      chunk: subsets at a time.

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
    latents = z
    if private is not None:
        own = jnp.moveaxis(private.mean, 1, 0) + jnp.exp(0.5 * jnp.moveaxis(private.log_variance, 1, 0)) * private.noise
        names = [modality.name for modality in decoding.modalities]
        latents = {name: jnp.concatenate([z, w], axis=-1) for name, w in zip(names, own, strict=True)}
    likelihood = sum_present(decoding.log_likelihood(latents), present)
    # A probability in float32 whatever the rest is in, as in MultiVae, with which float64 losses then agree to 1e-9.
    at_hand = subsets_at_hand(subsets, present)
    number = at_hand.sum(axis=1).astype(jnp.float32)
    weight = (1.0 / jnp.maximum(number, 1.0)).astype(mean.dtype) if missing else 1.0 / len(subsets)
    divergence = weight * _subset_kl(mean, log_variance, subsets, at_hand, chunk)
    if private is not None:
        own_divergence = sum_present(standard_normal_kl(private.mean, private.log_variance), present)
        divergence = divergence + private.beta * own_divergence
    return BoundTerms(-likelihood, beta * divergence)


def subsets_at_hand(subsets: np.ndarray, present: Array) -> Array:
    """Return bool [B, S]: the subsets, bool [S, M], all of whose modalities a row has, bool [B, M]."""
    lacking = (~present).astype(jnp.float32) @ jnp.asarray(subsets, jnp.float32).T
    return lacking == 0


def _subset_kl(mean: Array, log_variance: Array, subsets: np.ndarray, at_hand: Array, chunk: int) -> Array:
    """Return Σ_S KL(q_S ‖ N(0, I)) [B] over the subsets that each row has, bool [B, S].

    With T = Σ_{m ∈ S} T_m and W = Σ_{m ∈ S} T_m μ_m, the divergence is ½ Σ_d (W² / T² + 1 / T - 1 + log T): two matrix
    products for all rows and entries, and one logarithm, which the gradient does not need again.
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
    z: Array,
    mean: Array,
    log_variance: Array,
    subsets: np.ndarray,
    eps: float,
    has_prior: Callable[[Array], Array],
    chunk: int = 64,
) -> Array:
    """Return the log density of latents [B, S, D] under a uniform mixture of products of experts, [B, S].

    Args:
      z: latents [B, S, D].
      mean: of the experts [B, M, D].
      log_variance: of the experts [B, M, D].
      subsets: bool [P, M], the members of each product.
      eps: added to each expert's variance.
      has_prior: `bool [..., M] -> bool [...]`, whether N(0, I) is one more expert of a product.
      chunk: products at a time.
    """
    chunks, is_product = _in_chunks(subsets, chunk)

    def part(total: Array, chosen: tuple[Array, Array]) -> tuple[Array, None]:
        members, counted = chosen
        location, log_scale = product_of_experts(
            mean[:, None], log_variance[:, None], members[None], eps=eps, prior=has_prior(members[None])
        )
        distance = jax.lax.map(  # over the products, for [B, S, P, D] does not lie in memory
            lambda one: (jnp.square(z - one[0][:, None]) * jnp.exp(-one[1])[:, None]).sum(axis=-1),
            (jnp.moveaxis(location, 1, 0), jnp.moveaxis(log_scale, 1, 0)),
        )
        constants = (log_scale + jnp.log(2 * jnp.pi)).sum(axis=-1)
        terms = -0.5 * (jnp.moveaxis(distance, 0, -1) + constants[:, None])
        terms = jnp.where(counted, terms, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

    total, _ = jax.lax.scan(part, jnp.full(z.shape[:2], -jnp.inf), (chunks, is_product))
    return total - jnp.log(len(subsets))


def _in_chunks(subsets: np.ndarray, chunk: int) -> tuple[Array, Array]:
    """Return subsets, bool [P, M], as [C, chunk, M], and bool [C, chunk], False for the padding of the last chunk."""
    chunk = min(chunk, len(subsets))
    padding = -len(subsets) % chunk
    padded = np.pad(subsets, ((0, padding), (0, 0))).reshape(-1, chunk, subsets.shape[1])
    return jnp.asarray(padded), jnp.asarray(np.arange(padded.shape[0] * chunk) < len(subsets)).reshape(-1, chunk)
