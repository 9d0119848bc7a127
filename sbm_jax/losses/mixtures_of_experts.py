"""MMVAE and MMVAE+, the bounds whose posterior is a mixture of experts. For shapes, see `losses.bounds`."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from sbm_jax.distributions import POSTERIORS, Posterior
from sbm_jax.losses.bounds import Decoding, sum_present
from sbm_jax.types import Array


class Family(NamedTuple):
    """A family of posteriors and the estimator of its bound.

    Attributes:
      posterior: a key of `distributions.POSTERIORS`.
      estimator: ``"iwae"``, the importance-weighted bound of each expert, or ``"dreg"``, a surrogate with the doubly
        reparametrised gradient of the bound but not its value.
    """

    posterior: str = "laplace_with_softmax"
    estimator: str = "dreg"


def mmvae_terms(
    mean: Float[Array, "B M D"],
    raw: Float[Array, "B M D"],
    decoding: Decoding,
    noise: Float[Array, "M K B D"],
    prior_raw: Float[Array, " D"],
    family: Family,
    present: Bool[Array, "B M"] | None = None,
) -> Float[Array, " B"]:
    """Return the negative MMVAE bound of each row; its posterior is a mixture of the experts.

    L_b = -1/M Σ_m log 1/K Σ_k p(x, z_mk) / q(z_mk | x), q = 1/M Σ_n q_n, z_mk ~ q_m, over the row's modalities.

    Args:
      mean: means of the experts.
      raw: raw scales of the experts.
      decoding: see `Decoding`.
      noise: standard normal, or uniform in (-1, 1) for Laplace posteriors.
      prior_raw: raw scale of the prior; trained.
      family: see `Family`.
      present: the modalities that each row has; None if nothing is missing.

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
    likelihood = sum_present(decoding.log_likelihood(z), present)
    return _mixture_bound(likelihood + log_prior - log_q + hook, family, present)


def mmvae_plus_terms(
    mean: Float[Array, "B M D"],
    raw: Float[Array, "B M D"],
    private_mean: Float[Array, "B M D2"],
    private_raw: Float[Array, "B M D2"],
    decoding: Decoding,
    noise: Sequence[Array],
    private_prior_raw: Float[Array, "M D2"],
    beta: float,
    family: Family,
    present: Bool[Array, "B M"] | None = None,
) -> Float[Array, " B"]:
    """Return the negative bound of MMVAE+, MMVAE with private latents, for each row [B].

    Modality m is reconstructed from its shared and its private latent, the others from the same shared latent and
    private latents drawn from their priors. L_b = -1/M Σ_m log 1/K Σ_k w_mk, log w = Σ_n r_n log p(x_n | ·)
    + β [log p(u, w) - log q(u) - log q(w_m | x_m)].

    Args:
      mean: means of the shared-latent experts.
      raw: their raw scales.
      private_mean: means of the private-latent posteriors.
      private_raw: their raw scales.
      decoding: see `Decoding`; decodes [u, w], of size D + D2.
      noise: arrays for each modality m in turn: for u_m [K, B, D], for w_m [K, B, D2], then for the private latents of
        all other modalities [K, B, D2], in order.
      private_prior_raw: raw scales of the priors of private latents; trained.
      beta: β, weight of the divergence.
      family: see `Family`.
      present: the modalities that each row has; None if nothing is missing.

    Reference: E. Palumbo, I. Daunhawer and J. Vogt, "MMVAE+: Enhancing the Generative Quality of Multimodal VAEs
      without Compromises", 2023. https://openreview.net/forum?id=sdQGxouELX
    """
    posterior, num_modalities = POSTERIORS[family.posterior], mean.shape[1]
    present = jnp.ones(mean.shape[:2], bool) if present is None else present
    scale, private_scale = posterior.scale(raw), posterior.scale(private_raw)
    prior_scale = posterior.scale(private_prior_raw)
    draws = iter(noise)
    decoded: dict[str, list[Array]] = {modality.name: [] for modality in decoding.modalities}
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
    likelihood = sum_present(likelihood, present)
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
    """Stop the gradients of posterior parameters inside densities, if the estimator requires it."""
    return tuple(jax.lax.stop_gradient(a) for a in arrays) if family.estimator == "dreg" else arrays


def _mixture_log_prob(
    family: Family,
    z: Float[Array, "M K B D"],
    mean: Float[Array, "B M D"],
    scale: Float[Array, "B M D"],
    present: Bool[Array, "B M"],
) -> Float[Array, "M K B"]:
    """Return log 1/M Σ_n q_n(z | x_n) of latents, over the modalities that each row has."""
    mean, scale = _stopped(family, mean, scale)
    log_prob = POSTERIORS[family.posterior].log_prob
    experts = [(mean[None, None, :, n], scale[None, None, :, n]) for n in range(mean.shape[1])]
    terms = jnp.stack([log_prob(z, *expert).sum(axis=-1) for expert in experts], axis=-1)
    # An empty row never counts, but must not yield NaN either.
    counted = jnp.broadcast_to(present | ~present.any(axis=1, keepdims=True), terms.shape)
    number = jnp.maximum(present.sum(axis=1), 1).astype(z.dtype)
    return jax.nn.logsumexp(jnp.where(counted, terms, -jnp.inf), axis=-1) - jnp.log(number)[None, None]


def _mixture_bound(
    log_weights: Float[Array, "M K B"], family: Family, present: Bool[Array, "B M"]
) -> Float[Array, " B"]:
    """Return the negative bound for log weights, averaged over the experts that each row has."""
    if family.estimator == "iwae":
        bound = jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])
    else:
        bound = (jax.lax.stop_gradient(jax.nn.softmax(log_weights, axis=1)) * log_weights).sum(axis=1)
    number = jnp.maximum(present.sum(axis=1), 1).astype(bound.dtype)
    return -jnp.where(present.T, bound, 0.0).sum(axis=0) / number


def _estimate(
    z: Float[Array, "*lead K B D"], family: Family
) -> tuple[Float[Array, "*lead K B D"], Float[Array, "*lead K B"]]:
    """Return latents for the estimator, and zeros to add to their log weights.

    The doubly reparametrised gradient multiplies the gradient at each sample by its normalised weight once more. These
    weights arrive here as the gradient of the zeros, so one backward pass suffices.
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
