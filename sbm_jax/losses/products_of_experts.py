"""MVAE and MVTCAE, the bounds whose posterior is a product of experts. For shapes, see `losses.bounds`."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sbm_jax.distributions import gaussian_kl, product_of_experts, standard_normal_kl
from sbm_jax.losses.bounds import EXPERT_EPS, BoundTerms, Decoding, sum_present
from sbm_jax.types import Array, Modality


def mvae_terms(
    mean: Float[Array, "B M D"],
    log_variance: Float[Array, "B M D"],
    decoding: Decoding,
    noise: Float[Array, "S B D"],
    subsets: Sequence[Bool[Array | np.ndarray, " M"]] | Bool[np.ndarray, "S M"],
    beta: Array | float,
    present: Bool[Array, "B M"] | None = None,
    unimodal_prior: bool = True,
) -> BoundTerms:
    """Return the terms of MVAE: one ELBO per subset, on the subset's modalities, with the prior as another expert.

    L_b = Σ_S [Σ_{m ∈ S} -r_m log p(x_m | z_S) + β KL(q_S ‖ N(0, I))]. Each subset averages over
    rows that have one of its modalities; terms are weighted so that their mean over rows is the sum of these averages.

    Args:
      mean: means of the experts.
      log_variance: log variances of the experts.
      decoding: see `Decoding`.
      noise: standard normal.
      subsets: S masks; a NumPy mask decodes its own modalities only.
      beta: β, weight of the KL divergence.
      present: the modalities that each row has; None if nothing is missing.
      unimodal_prior: False leaves the prior out of products of a single expert (the SBM paper's baselines).

    Reference: M. Wu and N. Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", 2018.
      https://arxiv.org/abs/1802.05335
    """
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    latents: dict[str, list[Array]] = {modality.name: [] for modality in decoding.modalities}
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
    """Return the members of a subset, bool [M]; all modalities if the subset is a traced array."""
    if not isinstance(subset, np.ndarray):
        return list(modalities)
    return [modality for modality, member in zip(modalities, subset, strict=True) if member]


def _sum_counted(values: Float[Array, "S B"], weights: Float[Array, "S B"]) -> Float[Array, " B"]:
    """Return Σ_s w_s v_s; values with weight 0 may be anything, even NaN."""
    return jnp.where(weights > 0, weights * values, 0.0).sum(axis=0)


def mvtcae_terms(
    mean: Float[Array, "B M D"],
    log_variance: Float[Array, "B M D"],
    decoding: Decoding,
    noise: Float[Array, "B D"],
    alpha: float,
    beta: Array | float,
    present: Bool[Array, "B M"] | None = None,
) -> BoundTerms:
    """Return the terms of MVTCAE, whose posterior is the product of all experts, without the prior.

    L_b = (M - α)/M Σ_m -r_m log p(x_m | z) + β [(1 - α) KL(q ‖ N(0, I)) + α/M Σ_m KL(q ‖ q_m)].

    Args:
      mean: means of the experts.
      log_variance: log variances of the experts.
      decoding: see `Decoding`.
      noise: standard normal.
      alpha: α, weight of the conditional bounds, 0 to 1.
      beta: β, weight of the KL divergences.
      present: the modalities that each row has; None if nothing is missing.

    Reference: H. Hwang et al., "Multi-View Representation Learning via Total Correlation Objective", 2021.
      https://openreview.net/forum?id=3k1EwMgd2ra
    """
    num_modalities = mean.shape[1]
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    joint_mean, joint_log_variance = product_of_experts(mean, log_variance, present, eps=EXPERT_EPS)
    z = joint_mean + jnp.exp(0.5 * joint_log_variance) * noise
    likelihood = sum_present(decoding.log_likelihood(z), present)
    own = gaussian_kl(joint_mean[:, None], joint_log_variance[:, None], mean, log_variance)
    own = sum_present(own, present)
    prior = standard_normal_kl(joint_mean, joint_log_variance)
    return BoundTerms(
        -(num_modalities - alpha) / num_modalities * likelihood,
        beta * ((1.0 - alpha) * prior + alpha / num_modalities * own),
    )
