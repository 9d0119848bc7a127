"""Base class of the ways to join the experts of several modalities into one posterior."""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import POSTERIORS, Posterior, product_of_experts
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.bounds import EXPERT_EPS, BoundTerms, Decoding, likelihood_rescaling
from sbm_jax.losses.mixtures_of_products import (
    PrivateLatents,
    mixture_of_products_log_prob,
    mopoe_terms,
    subsets_at_hand,
)
from sbm_jax.types import Array, Key, Modality, Params


class Encoded(NamedTuple):
    """An encoded batch, the input of the bounds.

    Attributes:
      experts: means and raw scales [B, M, D + D'], private latents last.
      decoding: see `losses.bounds.Decoding`.
      params: parameters of the stage.
      present: bool [B, M]; None if nothing is missing.
    """

    experts: tuple[Array, Array]
    decoding: Decoding
    params: Params
    present: Array | None

    @property
    def batch(self) -> int:
        """B, the number of rows."""
        return self.experts[0].shape[0]

    @property
    def num_modalities(self) -> int:
        """M, the number of modalities."""
        return self.experts[0].shape[1]


@checked_dataclass
class Joining(abc.ABC):
    """Joins the experts of all modalities into a posterior, and defines the bound that trains them.

    Attributes:
      likelihood: likelihood of all modalities with a Gaussian or Laplace one; "" leaves each its own.
      scale: scale of `likelihood`.
      rescaling: multiply the log likelihood of a modality of d_m entries by max_n d_n / d_m.
      averaged: divide the log likelihood of a modality by its number of entries.
      latent_size: D; 0 for that of `JointPosteriorConfig`.
      training: changes to `JointPosteriorConfig.training` for this method, such as ``{"num_steps": 10_000}``.
    """

    likelihood: str = "laplace"
    scale: float = 0.75
    rescaling: bool = False
    averaged: bool = False
    latent_size: int = 0
    training: dict = dataclasses.field(default_factory=dict, hash=False)

    # Constants of a class, unless it makes them options.

    name = ""
    """Name of the method, of its option group and of the stage that trains it."""

    apart_from_training = ()
    """Options that do not affect training, or that the codecs' settings already record."""

    posterior = "normal"
    """The family of the experts, a key of `distributions.POSTERIORS`."""

    private_size = 0
    """D', the size of each modality's private latent."""

    private_prior = "standard"
    """The prior of the private latents of unobserved modalities; see `joinings.MmvaePlus`."""

    is_mixture = False
    """Whether the posterior mixes the experts, which may be of any family; otherwise it multiplies them."""

    mixes_given = False
    """Whether a conditional sample comes from one of `subsets`, rather than from all observed modalities."""

    eps = EXPERT_EPS
    """Added to the variance of every expert of a product."""

    def __post_init__(self):
        if self.likelihood not in ("", "gaussian", "laplace"):
            raise unknown(f"likelihood ({self._of('likelihood')})", self.likelihood, ("gaussian", "laplace"))
        require(self.scale > 0, self._of("scale"), self.scale, "a positive number")
        self._least(latent_size=0)
        if self.averaged and self.rescaling:
            raise SbmError(f"{self._of('averaged')} already gives every modality the same weight; leave rescaling out.")
        if not self.likelihood:
            self._refuse_unused("scale", "without a likelihood, because each modality has its own")

    def _of(self, field: str) -> str:
        return f"config.methods.{self.name}.{field}"

    def _least(self, **least: int) -> None:
        for name, bound in least.items():
            require(getattr(self, name) >= bound, self._of(name), getattr(self, name), f"{bound} or more")

    def _choices(self, **known) -> None:
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise unknown(f"{name} ({self._of(name)})", getattr(self, name), choices)

    def _refuse_unused(self, name: str, where: str) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        if getattr(self, name) != defaults[name]:
            raise SbmError(f"{self._of(name)} has no effect {where}; leave it at {defaults[name]}.")

    @property
    def weights_samples(self) -> bool:
        """Whether the bound weights samples by their likelihoods, which must then be exact."""
        return getattr(self, "estimator", "elbo") != "elbo"

    def decoded(self, modality: Modality) -> Modality:
        """Return the modality with the likelihood and codec that this method gives it."""
        replaced = self.likelihood and modality.likelihood in ("gaussian", "laplace")
        own = {"likelihood": self.likelihood, "scale": self.scale} if replaced else {}
        return dataclasses.replace(modality, **own)

    def check(self, modalities: tuple[Modality, ...]) -> None:
        """Raise `SbmError` for modalities that the method cannot join; by default, accept all."""
        del modalities

    def factors(self, modalities: tuple[Modality, ...]) -> tuple[float, ...]:
        """Return the factor of each modality's log likelihood."""
        if self.averaged:
            return tuple(1.0 / int(np.prod(modality.shape)) for modality in modalities)
        return likelihood_rescaling(modalities) if self.rescaling else (1.0,) * len(modalities)

    def subsets(self, num_modalities: int) -> np.ndarray:
        """Return the subsets, bool [S, M], whose products the posterior of the bound mixes."""
        return np.ones((1, num_modalities), bool)

    def prior_is_expert(self, members: Array) -> Array:
        """Return bool [...] for subsets, bool [..., M]: whether their products include N(0, I) as an expert."""
        return jnp.zeros(members.shape[:-1], bool)

    def noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Return the noise that the experts' `Posterior.sample` takes."""
        if self.family.noise == "uniform":
            return jax.random.uniform(key, shape, minval=-1.0 + 1e-6, maxval=1.0)
        return jax.random.normal(key, shape)

    @property
    def family(self) -> Posterior:
        """The family of the experts."""
        return POSTERIORS[self.posterior]

    def component(
        self, key: Key, mean: Array, raw: Array, observed: Array, num_samples: int, mixes: bool
    ) -> tuple[Array, Array]:
        """Return the location and scale [B, S, D] of joint latents given the observed modalities.

        Args:
          key: chooses the component of a mixture.
          mean: means of the joint-latent experts [B, M, D]; any finite value if unobserved.
          raw: their raw scales [B, M, D].
          observed: bool [B, M].
          num_samples: S.
          mixes: draw one of the products of `subsets` for each sample, instead of using all observed modalities.
        """
        members = jnp.broadcast_to(observed[:, None], (len(observed), num_samples, observed.shape[1]))
        if mixes:
            subsets = self.subsets(observed.shape[1])
            at_hand = subsets_at_hand(subsets, observed)
            logits = jnp.where(at_hand | ~at_hand.any(axis=1, keepdims=True), 0.0, -jnp.inf)
            chosen = jax.random.categorical(key, logits[:, None], shape=(len(observed), num_samples))
            members = members & jnp.asarray(subsets)[chosen]
        if self.is_mixture:
            expert = jnp.argmax(members, axis=-1)[..., None]
            return tuple(jnp.take_along_axis(array, expert, axis=1) for array in (mean, self.family.scale(raw)))
        prior = self.prior_is_expert(members)
        location, log_variance = product_of_experts(mean[:, None], raw[:, None], members, self.eps, prior)
        return location, jnp.exp(0.5 * log_variance)

    def log_prob(self, z: Array, mean: Array, raw: Array, subsets: np.ndarray) -> Array:
        """Return the log density [B, S] of joint latents [B, S, D] under the posterior given all modalities.

        Args:
          z: joint latents [B, S, D].
          mean: means of the joint-latent experts [B, M, D].
          raw: their raw scales [B, M, D].
          subsets: bool [P, M], the subsets whose products are mixed; unused for a mixture of experts.
        """
        if not self.is_mixture:
            return mixture_of_products_log_prob(z, mean, raw, subsets, self.eps, self.prior_is_expert)
        scale = self.family.scale(raw)
        terms = self.family.log_prob(z[:, :, None], mean[:, None], scale[:, None]).sum(axis=-1)
        return jax.nn.logsumexp(terms, axis=-1) - jnp.log(terms.shape[-1])

    @abc.abstractmethod
    def terms(self, key: Key, encoded: Encoded) -> BoundTerms | Array:
        """Return the per-row terms of the bound, or the per-row loss [B] of an importance-weighted one.

        Args:
          key: typed key for the noise and the subsets.
          encoded: the encoded batch.
        """

    def _mixture_terms(self, key: Key, encoded: Encoded, beta: float, beta_private: float = 1.0):
        """Return the terms of the bound whose posterior mixes the products of `subsets`, with one subset per row."""
        noise_key, subset_key = jax.random.split(key)
        experts, _, _, present = encoded
        batch, size = encoded.batch, experts[0].shape[-1] - self.private_size
        subsets = self.subsets(encoded.num_modalities)
        at_hand = jnp.ones((batch, len(subsets)), bool)
        if present is not None:
            at_hand = subsets_at_hand(subsets, present)
        chosen = jax.random.categorical(subset_key, jnp.where(at_hand, 0.0, -jnp.inf))
        joint, own = zip(*(jnp.split(array, [size], axis=-1) for array in experts), strict=True)
        noise, private = jax.random.normal(noise_key, (batch, size)), None
        if self.private_size:
            own_noise = jax.random.normal(jax.random.fold_in(noise_key, 1), jnp.moveaxis(own[0], 1, 0).shape)
            private = PrivateLatents(*own, own_noise, beta_private)
        return mopoe_terms(*joint, encoded.decoding, noise, chosen, beta, present, subsets, private=private)
