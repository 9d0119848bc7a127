"""Latents of multimodal variational autoencoders: prior and posterior samples, and their densities."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.distributions import Posterior, product_of_experts
from sbm_jax.systems.joining import Joining
from sbm_jax.types import Array, Key, Params

Experts = tuple[Array, Array]
"""Means and raw scales [B, M, D + D'] of the experts of a batch, private latents last."""


class Latents(NamedTuple):
    """S latents of each of B rows.

    Attributes:
      joint: joint latents of all modalities [B, S, D].
      private: private latents of each modality [B, S, M, D']; D' = 0 if the method has none.
    """

    joint: Array
    private: Array


@dataclasses.dataclass(frozen=True)
class LatentLaws:
    """Prior and posterior distributions of latents under one method, as functions of experts and parameters.

    Attributes:
      joining: how experts are joined.
      sizes: D of the joint latent and D' of each modality's private one.
      num_modalities: M.
    """

    joining: Joining
    sizes: tuple[int, int]
    num_modalities: int

    @property
    def family(self) -> Posterior:
        """The family of the experts."""
        return self.joining.family

    # MARK: The prior

    def init(self) -> Params:
        """Return the initial raw scales of the prior."""
        size, private_size = self.sizes
        params = {"prior": jnp.zeros(size)}
        if self.joining.is_mixture and private_size:
            params["private_priors"] = jnp.zeros((self.num_modalities, private_size))
        return params

    def sample_prior(self, params: Params, key: Key, batch: int, num_samples: int) -> Latents:
        """Sample latents [B, S, ...] from the prior."""
        joint_key, private_key = jax.random.split(key)
        joint = self._from_prior(joint_key, params["prior"], (batch, num_samples, self.sizes[0]))
        return Latents(joint, self._unknown_private(params, private_key, batch, num_samples))

    def _from_prior(self, key: Key, raw: Array, shape: tuple[int, ...]) -> Array:
        scale = jnp.broadcast_to(self.family.scale(raw), shape)
        return self.family.sample(jnp.zeros(shape), scale, self.joining.noise(key, shape))

    def _unknown_private(self, params: Params, key: Key, batch: int, num_samples: int) -> Array:
        """Sample private latents [B, S, M, D'] of unobserved modalities: the same for all, or one for each."""
        size, shape = self.sizes[1], (batch, num_samples, self.num_modalities, self.sizes[1])
        if not size:
            return jnp.zeros(shape)
        if not self.joining.is_mixture:
            return jax.random.normal(key, shape)
        if self.joining.private_prior == "own":
            return self._from_prior(key, params["private_priors"], shape)
        return jnp.broadcast_to(self._from_prior(key, jnp.zeros(size), (batch, num_samples, 1, size)), shape)

    def log_prior(self, params: Params, latents: Latents) -> Array:
        """Return the log density [B, S] of latents under the prior, in nats."""
        own_raw = jnp.zeros((self.num_modalities, self.sizes[1]))
        if self.joining.private_prior == "own" and self.joining.is_mixture:
            own_raw = params.get("private_priors", own_raw)
        joint_scale, own_scale = (self.family.scale(raw)[None, None] for raw in (params["prior"], own_raw))
        joint = self.family.log_prob(latents.joint, 0.0, joint_scale).sum(axis=-1)
        return joint + self.family.log_prob(latents.private, 0.0, own_scale).sum(axis=(-2, -1))

    # MARK: The posterior

    def sample_given(self, params: Params, key: Key, experts: Experts, observed: Array, num_samples: int) -> Latents:
        """Sample latents given `observed`, bool [B, M]; meaningless for rows with no observed modality."""
        choose_key, noise_key, own_key, unknown_key = jax.random.split(key, 4)
        joint = self._joint(experts, observed)
        location, scale = self.joining.component(choose_key, *joint, observed, num_samples, self.joining.mixes_given)
        joint = self.family.sample(location, scale, self.joining.noise(noise_key, location.shape))
        private = self._unknown_private(params, unknown_key, len(observed), num_samples)
        if private.shape[-1]:
            own = self._sample_private(own_key, experts, num_samples)
            private = jnp.where(observed[:, None, :, None], own, private)
        return Latents(joint, private)

    def sample_whole(
        self, choose_key: Key, noise_key: Key, own_key: Key, experts: Experts, num_samples: int, mixes: bool
    ) -> Latents:
        """Sample latents given all modalities; if `mixes`, each from one of the products that the bound mixes."""
        everything = jnp.ones(experts[0].shape[:2], bool)
        joint = self._joint(experts, everything)
        location, scale = self.joining.component(choose_key, *joint, everything, num_samples, mixes)
        joint = self.family.sample(location, scale, self.joining.noise(noise_key, location.shape))
        return Latents(joint, self._sample_private(own_key, experts, num_samples))

    def parts(self, key: Key, experts: Experts, present: Array) -> tuple[Array, Array, Array, Array]:
        """Return the posterior given `present`, bool [B, M], or one random component per row if it is a mixture.

        Private latents of missing modalities have mean 0 and the scale of raw zeros.

        Returns:
          Location and scale of the joint latent [B, D], and of the private ones [M, B, D'].
        """
        joint = self._joint(experts, present)
        location, scale = self.joining.component(key, *joint, present, 1, mixes=self.joining.is_mixture)
        own = (jnp.where(present[..., None], array[..., self.sizes[0] :], 0.0) for array in experts)
        own_mean, own_raw = (jnp.moveaxis(array, 1, 0) for array in own)
        return location[:, 0], scale[:, 0], own_mean, self.family.scale(own_raw)

    def own(self, experts: Experts, present: Array | None = None) -> Experts:
        """Return means and raw scales [B, M, D + D'] of each modality's decoder input, given all present modalities."""
        (mean, raw), size = experts, self.sizes[0]
        if self.joining.is_mixture:
            return mean, raw
        members = jnp.ones(mean.shape[:2], bool) if present is None else present
        prior = self.joining.prior_is_expert(members)
        joint = product_of_experts(mean[..., :size], raw[..., :size], members, self.joining.eps, prior)
        shape = (*mean.shape[:2], size)
        return tuple(
            jnp.concatenate([jnp.broadcast_to(part[:, None], shape), own[..., size:]], axis=-1)
            for part, own in zip(joint, (mean, raw), strict=True)
        )

    def log_posterior(self, experts: Experts, latents: Latents, subsets: np.ndarray) -> Array:
        """Return the log density [B, S] of latents given all modalities, under the mixture of products of `subsets`."""
        everything = jnp.ones(experts[0].shape[:2], bool)
        joint = self.joining.log_prob(latents.joint, *self._joint(experts, everything), subsets)
        own_mean, own_raw = (array[:, None, :, self.sizes[0] :] for array in experts)
        own_scale = self.family.scale(own_raw)
        return joint + self.family.log_prob(latents.private, own_mean, own_scale).sum(axis=(-2, -1))

    def _joint(self, experts: Experts, observed: Array) -> Experts:
        """Return means and raw scales [B, M, D] of the joint-latent experts; 0 for unobserved modalities."""
        mean, raw = (jnp.where(observed[..., None], array[..., : self.sizes[0]], 0.0) for array in experts)
        return mean, raw

    def _sample_private(self, key: Key, experts: Experts, num_samples: int) -> Array:
        """Sample private latents [B, S, M, D'] from their posteriors."""
        mean, raw = (array[:, None, :, self.sizes[0] :] for array in experts)
        noise = self.joining.noise(key, (len(mean), num_samples, *mean.shape[2:]))
        return self.family.sample(mean, self.family.scale(raw), noise)
