"""Objectives of the multimodal VAEs that score models are compared with, as per-row terms.

Encoders give a Gaussian (or Laplace) expert for each modality; the methods differ in how they join these to a
posterior, and in the bound. Every function takes its noise and its choices of subsets as arrays, so that recorded ones
can be replayed, and decoders as a function from {name: latents [..., B, ·]} to {name: log likelihoods [..., B]}.

Experts are stacked: means and log variances, or the raw scales of any family (`distributions.POSTERIORS`), [B, M, D];
`present` is bool [B, M], False where a row lacks a modality, which then enters no posterior and no likelihood.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.distributions import (
    POSTERIORS,
    Posterior,
    gaussian_kl,
    product_of_experts,
    standard_normal_kl,
)
from sbm_jax.types import Array, Modality

DECODED_AT_ONCE = 8192
"""Latents that each decoder is given at a time."""

LogProbFn = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@flax.struct.dataclass
class BoundTerms:
    """Per-row terms of a negative bound, [B] each: the loss of a row, and the two parts that it is the sum of."""

    reconstruction: Array
    regulariser: Array

    @property
    def loss(self) -> Array:
        """The negative bound [B]."""
        return self.reconstruction + self.regulariser


class Decoding(NamedTuple):
    """How a likelihood is had from latents.

    Attributes:
      modalities: the modalities, in the order of every mask.
      log_prob_fn: {name: latents [..., B, ·]} -> {name: log p(x_m | z) [..., B]}, of data that it knows.
      rescaling: a factor for the log likelihood of each modality.
    """

    modalities: tuple[Modality, ...]
    log_prob_fn: LogProbFn
    rescaling: tuple[float, ...]

    def log_likelihood(self, z: Mapping[str, Array] | Array) -> Array:
        """Return r_m log p(x_m | z) as [..., B, M] for latents [..., B, D], the same for all modalities or by name."""
        latents = z if isinstance(z, Mapping) else {modality.name: z for modality in self.modalities}
        return jnp.stack(list(self.by_modality(latents).values()), axis=-1)

    def by_modality(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return r_m log p(x_m | z_m) as {name: [..., B]} for latents {name: [..., B, D]}, in the masks' order.

        Many latents of each row are decoded a part at a time, and again for the gradient: M experts with K samples each
        make M K B of them for every decoder, whose activations no memory holds.
        """
        lead, batch = next(iter(latents.values())).shape[:-2], next(iter(latents.values())).shape[-2]
        at_once = max(1, DECODED_AT_ONCE // batch)
        alike = all(array.shape[:-2] == lead for array in latents.values())
        if math.prod(lead) <= at_once or not alike:
            return self._by_modality(latents)
        flat = {name: array.reshape(-1, *array.shape[-2:]) for name, array in latents.items()}
        terms = jax.lax.map(jax.checkpoint(self._by_modality), flat, batch_size=at_once)
        return {name: array.reshape(*lead, batch) for name, array in terms.items()}

    def _by_modality(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        terms = self.log_prob_fn(latents)
        names = [modality.name for modality in self.modalities]
        return {name: factor * terms[name] for name, factor in zip(names, self.rescaling, strict=True)}


def likelihood_rescaling(modalities: Sequence[Modality]) -> tuple[float, ...]:
    """Return the largest number of entries over the own one, for each modality, so that all weigh the same."""
    sizes = [int(np.prod(modality.shape)) for modality in modalities]
    return tuple(max(sizes) / size for size in sizes)


def all_subsets(num_modalities: int) -> np.ndarray:
    """Return bool [2^M - 1, M], the non-empty subsets by size, then lexicographically."""
    members = itertools.chain.from_iterable(
        itertools.combinations(range(num_modalities), size) for size in range(1, num_modalities + 1)
    )
    return np.array([np.isin(np.arange(num_modalities), chosen) for chosen in members])


def _sum_present(values: Array, present: Array) -> Array:
    """Sum [..., B, M] over the modalities that a row has, bool [B, M]."""
    return jnp.where(jnp.broadcast_to(present, values.shape), values, 0.0).sum(axis=-1)


# MARK: Products of experts


def mvae_terms(
    mean: Array,
    log_variance: Array,
    decoding: Decoding,
    noise: Array,
    subsets: Sequence[Array | np.ndarray],
    beta: Array | float,
    present: Array | None = None,
    unimodal_prior: bool = True,
) -> BoundTerms:
    """Return the terms of MVAE: a bound for each subset, of its own modalities, with the prior as one more expert.

    L_b = Σ_S [Σ_{m ∈ S} -r_m log p(x_m | z_S) + β KL(q_S ‖ N(0, I))]. Rows that have no modality of a subset do not
    count in its mean, so that terms are weighted for `mean` over rows to be the sum of these means.

    Args:
      mean: of the experts [B, M, D].
      log_variance: of the experts [B, M, D].
      decoding: see `Decoding`.
      noise: standard normal [S, B, D].
      subsets: S times bool [M]; of those that are NumPy arrays only their own modalities are decoded.
      beta: weight of the divergence.
      present: bool [B, M]; None where nothing is missing.
      unimodal_prior: False leaves the prior out of the products of a single expert (the SBM paper's baselines).

    Reference: M. Wu and N. Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", 2018.
      https://arxiv.org/abs/1802.05335
    """
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    latents = {modality.name: [] for modality in decoding.modalities}
    weights, regulariser = [], jnp.zeros(len(mean), mean.dtype)
    for subset, eps in zip(subsets, noise, strict=True):
        members = present & subset[None]
        prior = unimodal_prior | (members.sum(axis=1) > 1)
        joint_mean, joint_log_variance = product_of_experts(mean, log_variance, members, prior=prior)
        kept = members.any(axis=1)
        weight = jnp.where(kept, len(mean) / jnp.maximum(kept.sum(), 1), 0.0)
        regulariser = regulariser + weight * beta * standard_normal_kl(joint_mean, joint_log_variance)
        weights.append(jnp.where(members, weight[:, None], 0.0))
        z = joint_mean + jnp.exp(0.5 * joint_log_variance) * eps
        for modality in _may_be_in(subset, decoding.modalities):
            latents[modality.name].append(z)
    terms = decoding.by_modality({name: jnp.stack(arrays) for name, arrays in latents.items()})
    reconstruction = jnp.zeros(len(mean), mean.dtype)
    for i, modality in enumerate(decoding.modalities):
        own = [
            w[:, i]
            for w, subset in zip(weights, subsets, strict=True)
            if modality in _may_be_in(subset, decoding.modalities)
        ]
        reconstruction = reconstruction - _sum_counted(terms[modality.name], jnp.stack(own))
    return BoundTerms(reconstruction, regulariser)


def _may_be_in(subset: Array | np.ndarray, modalities: Sequence[Modality]) -> list[Modality]:
    """Return the members of a subset, bool [M]; all modalities where it is not known while tracing."""
    if not isinstance(subset, np.ndarray):
        return list(modalities)
    return [modality for modality, member in zip(modalities, subset, strict=True) if member]


def _sum_counted(values: Array, weights: Array) -> Array:
    """Return Σ_s w_s v_s [B] of [S, B] over what counts: values of weight 0 may be anything."""
    return jnp.where(weights > 0, weights * values, 0.0).sum(axis=0)


def mvtcae_terms(
    mean: Array,
    log_variance: Array,
    decoding: Decoding,
    noise: Array,
    alpha: float,
    beta: Array | float,
    present: Array | None = None,
) -> BoundTerms:
    """Return the terms of MVTCAE, whose posterior is the product of all experts without the prior.

    L_b = (M - α)/M Σ_m -r_m log p(x_m | z) + β [(1 - α) KL(q ‖ N(0, I)) + α/M Σ_m KL(q ‖ q_m)].

    Args:
      mean: of the experts [B, M, D].
      log_variance: of the experts [B, M, D].
      decoding: see `Decoding`.
      noise: standard normal [B, D].
      alpha: weight of the conditional bounds, 0 to 1.
      beta: weight of the divergences.
      present: bool [B, M]; None where nothing is missing.

    Reference: H. Hwang et al., "Multi-View Representation Learning via Total Correlation Objective", 2021.
      https://openreview.net/forum?id=3k1EwMgd2ra
    """
    num_modalities = mean.shape[1]
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    joint_mean, joint_log_variance = product_of_experts(mean, log_variance, present, eps=EXPERT_EPS)
    z = joint_mean + jnp.exp(0.5 * joint_log_variance) * noise
    likelihood = _sum_present(decoding.log_likelihood(z), present)
    own = gaussian_kl(joint_mean[:, None], joint_log_variance[:, None], mean, log_variance)
    own = _sum_present(own, present)
    prior = standard_normal_kl(joint_mean, joint_log_variance)
    return BoundTerms(
        -(num_modalities - alpha) / num_modalities * likelihood,
        beta * ((1.0 - alpha) * prior + alpha / num_modalities * own),
    )


EXPERT_EPS = 1e-8
"""Added to the variance of each expert by the authors of MoPoE and MVTCAE."""


# MARK: Mixtures of products


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
    likelihood = _sum_present(decoding.log_likelihood(latents), present)
    # A probability in float32 whatever the rest is in, as in MultiVae, with which float64 losses then agree to 1e-9.
    at_hand = subsets_at_hand(subsets, present)
    number = at_hand.sum(axis=1).astype(jnp.float32)
    weight = (1.0 / jnp.maximum(number, 1.0)).astype(mean.dtype) if missing else 1.0 / len(subsets)
    divergence = weight * _subset_kl(mean, log_variance, subsets, at_hand, chunk)
    if private is not None:
        own_divergence = _sum_present(standard_normal_kl(private.mean, private.log_variance), present)
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


# MARK: Mixtures of experts


class Family(NamedTuple):
    """A family of posteriors and its estimator.

    Attributes:
      posterior: a key of `distributions.POSTERIORS`.
      estimator: ``"iwae"``, the importance-weighted bound of each expert, or ``"dreg"``, its doubly reparametrised
        gradient, whose value is not the bound's.
    """

    posterior: str = "laplace_with_softmax"
    estimator: str = "dreg"


def mmvae_terms(
    mean: Array,
    raw: Array,
    decoding: Decoding,
    noise: Array,
    prior_raw: Array,
    family: Family,
    present: Array | None = None,
) -> Array:
    """Return the negative bound of MMVAE for each row [B]: the posterior is a mixture of the experts.

    L_b = -1/M Σ_m log 1/K Σ_k p(x, z_mk) / q(z_mk | x), q = 1/M Σ_n q_n, z_mk ~ q_m, over the modalities of a row.

    Args:
      mean: of the experts [B, M, D].
      raw: raw scales of the experts [B, M, D].
      decoding: see `Decoding`.
      noise: [M, K, B, D]: standard normal, or uniform in (-1, 1) for Laplace posteriors.
      prior_raw: raw scale of the prior [D]; trained.
      family: see `Family`.
      present: bool [B, M]; None where nothing is missing.

    Reference: Y. Shi et al., "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models",
      2019. https://arxiv.org/abs/1911.03393
    """
    posterior = POSTERIORS[family.posterior]
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    scale, means = posterior.scale(raw), jnp.moveaxis(mean, 1, 0)[:, None]
    z = posterior.sample(means, jnp.moveaxis(scale, 1, 0)[:, None], noise)  # [M, K, B, D]
    z, hook = _estimate(z, family)
    log_q = _mixture_log_prob(family, z, mean, scale, present)
    prior_scale = jnp.broadcast_to(posterior.scale(prior_raw), z.shape)
    log_prior = posterior.log_prob(z, jnp.zeros_like(z), prior_scale).sum(axis=-1)
    likelihood = _sum_present(decoding.log_likelihood(z), present)
    return _mixture_bound(likelihood + log_prior - log_q + hook, family, present)


def mmvae_plus_terms(
    mean: Array,
    raw: Array,
    private_mean: Array,
    private_raw: Array,
    decoding: Decoding,
    noise: Sequence[Array],
    private_prior_raw: Array,
    beta: float,
    family: Family,
    present: Array | None = None,
) -> Array:
    """Return the negative bound of MMVAE+ for each row [B]: MMVAE with private latents.

    Modality m is reconstructed from its shared and its private latent, the others from its shared latent and private
    ones from their priors. L_b = -1/M Σ_m log 1/K Σ_k w_mk, log w = Σ_n r_n log p(x_n | ·) + β [log p(u, w) - log q(u)
    - log q(w_m | x_m)].

    Args:
      mean: of the experts for shared latents [B, M, D].
      raw: their raw scales [B, M, D].
      private_mean: of the posteriors of private latents [B, M, D'].
      private_raw: their raw scales [B, M, D'].
      decoding: see `Decoding`; latents are [u, w], of size D + D'.
      noise: for each modality m in turn that of u_m [K, B, D] and of w_m [K, B, D'], then that of the private latents
        of all others in order.
      private_prior_raw: raw scales of the priors of private latents [M, D']; trained.
      beta: weight of the divergence.
      family: see `Family`.
      present: bool [B, M]; None where nothing is missing.

    Reference: E. Palumbo, I. Daunhawer and J. Vogt, "MMVAE+: Enhancing the Generative Quality of Multimodal VAEs
      without Compromises", 2023. https://openreview.net/forum?id=sdQGxouELX
    """
    posterior, num_modalities = POSTERIORS[family.posterior], mean.shape[1]
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    scale, private_scale = posterior.scale(raw), posterior.scale(private_raw)
    prior_scale = posterior.scale(private_prior_raw)
    draws, decoded = iter(noise), {modality.name: [] for modality in decoding.modalities}
    shared, private, hooks = [], [], []
    for m in range(num_modalities):
        u = posterior.sample(mean[None, :, m], scale[None, :, m], next(draws))
        w = posterior.sample(private_mean[None, :, m], private_scale[None, :, m], next(draws))
        both, hook = _estimate(jnp.concatenate([u, w], axis=-1), family)
        u, w = jnp.split(both, [u.shape[-1]], axis=-1)
        for n, modality in enumerate(decoding.modalities):
            drawn = w if n == m else _from_prior(posterior, prior_scale[n], next(draws))
            decoded[modality.name].append(jnp.concatenate([u, drawn], axis=-1))
        shared.append(u)
        private.append(w)
        hooks.append(hook)
    u, w, hook = jnp.stack(shared), jnp.stack(private), jnp.stack(hooks)
    likelihood = decoding.log_likelihood({name: jnp.stack(parts) for name, parts in decoded.items()})
    likelihood = _sum_present(likelihood, present)
    both = jnp.concatenate([u, w], axis=-1)
    log_prior = posterior.log_prob(both, jnp.zeros_like(both), posterior.scale(jnp.zeros_like(both))).sum(axis=-1)
    log_q = _mixture_log_prob(family, u, mean, scale, present)
    own_mean, own_scale = (jnp.moveaxis(a, 1, 0)[:, None] for a in (private_mean, private_scale))
    log_own = posterior.log_prob(w, *_stopped(family, own_mean, own_scale)).sum(axis=-1)
    weights = likelihood + beta * (log_prior - log_q - log_own) + hook
    return _mixture_bound(weights, family, present)


def _from_prior(posterior: Posterior, scale: Array, noise: Array) -> Array:
    return posterior.sample(jnp.zeros_like(noise), jnp.broadcast_to(scale, noise.shape), noise)


def _stopped(family: Family, *arrays: Array) -> tuple[Array, ...]:
    """Stop the gradients of posterior parameters inside densities, where the estimator asks for it."""
    return tuple(jax.lax.stop_gradient(a) for a in arrays) if family.estimator == "dreg" else arrays


def _mixture_log_prob(family: Family, z: Array, mean: Array, scale: Array, present: Array) -> Array:
    """Return log 1/M Σ_n q_n(z | x_n) [M, K, B] of latents [M, K, B, D], over the modalities that a row has."""
    mean, scale = _stopped(family, mean, scale)
    log_prob = POSTERIORS[family.posterior].log_prob
    experts = [(mean[None, None, :, n], scale[None, None, :, n]) for n in range(mean.shape[1])]
    terms = jnp.stack([log_prob(z, *expert).sum(axis=-1) for expert in experts], axis=-1)
    # A row that has nothing counts nowhere, and must not give NaN either.
    counted = jnp.broadcast_to(present | ~present.any(axis=1, keepdims=True), terms.shape)
    number = jnp.maximum(present.sum(axis=1), 1).astype(z.dtype)
    return jax.nn.logsumexp(jnp.where(counted, terms, -jnp.inf), axis=-1) - jnp.log(number)[None, None]


def _mixture_bound(log_weights: Array, family: Family, present: Array) -> Array:
    """Return the negative bound [B] from log weights [M, K, B]: a mean over the experts that a row has."""
    if family.estimator == "iwae":
        bound = jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])
    else:
        bound = (jax.lax.stop_gradient(jax.nn.softmax(log_weights, axis=1)) * log_weights).sum(axis=1)
    number = jnp.maximum(present.sum(axis=1), 1).astype(bound.dtype)
    return -jnp.where(present.T, bound, 0.0).sum(axis=0) / number


def _estimate(z: Array, family: Family) -> tuple[Array, Array]:
    """Return latents [..., K, B, D] for the estimator, and what is to be added to their log weights, zeros [..., K, B].

    The doubly reparametrised gradient multiplies what arrives at a sample by its normalised weight once more. These
    weights arrive here as the gradient of the zeros, so that one pass is enough.
    """
    if family.estimator == "iwae":
        return z, jnp.zeros(z.shape[:-1], z.dtype)
    return _weigh_gradient(z)


@jax.custom_vjp
def _weigh_gradient(z: Array) -> tuple[Array, Array]:
    return z, jnp.zeros(z.shape[:-1], z.dtype)


def _weigh_gradient_forward(z: Array) -> tuple[tuple[Array, Array], None]:
    return _weigh_gradient(z), None


def _weigh_gradient_backward(residuals: None, gradients: tuple[Array, Array]) -> tuple[Array]:
    del residuals
    of_z, of_weights = gradients
    total = of_weights.sum(axis=-2, keepdims=True)  # weights sum to 1 over the K samples
    weights = jnp.where(total == 0, 0.0, of_weights / jnp.where(total == 0, 1.0, total))
    return (of_z * weights[..., None],)


_weigh_gradient.defvjp(_weigh_gradient_forward, _weigh_gradient_backward)
