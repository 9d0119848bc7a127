"""MVAE, MMVAE, MoPoE, Diff-MVAE, MVTCAE and MMVAE+: how each joins experts into a posterior, and its bound.

Each method is a class whose fields are its options, with the defaults of its paper.

References: M. Wu and N. Goodman, 2018; Y. Shi et al., 2019; T. Sutter et al., 2021; H. Hwang et al., 2021; E. Palumbo
et al., 2023; see `losses`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import POSTERIORS
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.bounds import BoundTerms, all_subsets
from sbm_jax.losses.mixtures_of_experts import Family, mmvae_plus_terms, mmvae_terms
from sbm_jax.losses.products_of_experts import mvae_terms, mvtcae_terms
from sbm_jax.networks.diffusion_decoder import is_picture
from sbm_jax.systems.joining import Encoded, Joining
from sbm_jax.types import Array, CodecConfig, Key, Modality

ESTIMATORS = ("elbo", "iwae", "dreg")
PRIVATE_PRIORS = ("standard", "own")
GIVEN = ("product", "mixture")


@checked_dataclass
class Mvae(Joining):
    """MVAE: the product of all experts and the prior, trained on all modalities, on each alone and on random subsets.

    Attributes:
      beta: weight of the KL divergences.
      num_subsets: random subsets, of two to M - 1 modalities, in each step.
      prior_beside_one: multiply N(0, I) into the product of a single expert too; the tables of the SBM paper do so for
        several experts only.
    """

    beta: float = 1.0
    num_subsets: int = 1
    prior_beside_one: bool = True

    name = "mvae"
    eps = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._least(beta=0, num_subsets=0)

    def prior_is_expert(self, members: Array) -> Array:
        """Return True for all subsets, or only for those of two or more modalities."""
        return (members.sum(axis=-1) > 1) | self.prior_beside_one

    def terms(self, key: Key, encoded: Encoded) -> BoundTerms:
        """Return the terms of the sum of bounds over subsets."""
        noise_key, subset_key = jax.random.split(key)
        number = encoded.num_modalities
        fixed = np.concatenate([np.ones((1, number), bool), np.eye(number, dtype=bool)])
        subsets = [*fixed, *random_subsets(subset_key, self.num_subsets, number)]
        noise = jax.random.normal(noise_key, (len(subsets), encoded.batch, encoded.experts[0].shape[-1]))
        return mvae_terms(
            *encoded.experts, encoded.decoding, noise, subsets, self.beta, encoded.present, self.prior_beside_one
        )


@checked_dataclass
class Mvtcae(Joining):
    """MVTCAE: the product of all experts, which each expert alone learns to predict.

    Attributes:
      beta: weight of the KL divergences.
      alpha: weight of the conditional bounds, 0 to 1.
    """

    beta: float = 2.5
    alpha: float = 5 / 6

    name = "mvtcae"

    def __post_init__(self):
        super().__post_init__()
        self._least(beta=0)
        require(0 <= self.alpha <= 1, self._of("alpha"), self.alpha, "0 to 1")

    def terms(self, key: Key, encoded: Encoded) -> BoundTerms:
        """Return the terms of the total-correlation bound."""
        noise_key, _ = jax.random.split(key)
        noise = jax.random.normal(noise_key, (encoded.batch, encoded.experts[0].shape[-1]))
        return mvtcae_terms(*encoded.experts, encoded.decoding, noise, self.alpha, self.beta, encoded.present)


@checked_dataclass
class Mopoe(Joining):
    """MoPoE: the mixture of the products of all subsets; the product of all modalities includes the prior.

    Attributes:
      beta: weight of the KL divergences.
      private_size: size of each modality's private latent; 0 for none.
      beta_private: weight of their KL divergence relative to that of the joint latent.
      given: posterior given observed modalities: their ``"product"``, or the ``"mixture"`` of the products of all of
        their subsets, as in the tables of the SBM paper.
    """

    beta: float = 2.5
    private_size: int = 0
    beta_private: float = 1.0
    given: str = "product"

    name = "mopoe"
    apart_from_training = ("given",)

    def __post_init__(self):
        super().__post_init__()
        self._least(beta=0, private_size=0, beta_private=0)
        self._choices(given=GIVEN)

    @property
    def mixes_given(self) -> bool:
        """Whether each sample comes from the product of one subset of the observed modalities."""
        return self.given == "mixture"

    def subsets(self, num_modalities: int) -> np.ndarray:
        """Return all non-empty subsets, bool [2^M - 1, M]."""
        return all_subsets(num_modalities)

    def prior_is_expert(self, members: Array) -> Array:
        """Return True for the subset of all modalities only."""
        return members.all(axis=-1)

    def terms(self, key: Key, encoded: Encoded) -> BoundTerms:
        """Return the terms of the ELBO for a random subset per row."""
        return self._mixture_terms(key, encoded, self.beta, self.beta_private)


@checked_dataclass
class MopoeStar(Mopoe):
    """MoPoE* of the Diff-MVAE paper: averages log likelihoods over the entries of each modality."""

    likelihood: str = ""
    averaged: bool = True
    beta: float = 1e-5

    name = "mopoe_star"


@checked_dataclass
class DiffMvae(MopoeStar):
    """Diff-MVAE: MoPoE* with diffusion decoders for some modalities (Eq. 5), trained end to end by the bound, λ = g².

    In a lower bound the score term has a minus sign; Eq. 5 prints a plus.

    Attributes:
      diffused: modalities with a diffusion decoder, in addition to those that choose the codec ``"diffusion"``
        themselves; () for all images with a Gaussian or Laplace likelihood.
      codec: options of their codec, see `networks.codecs.diffusion.DiffusionCodecOptions`. A modality that chooses the
        codec ``"diffusion"`` itself keeps its own options; the method only sets its decoder's objective, unless the
        modality does.
    """

    diffused: tuple[str, ...] = ()
    codec: dict = dataclasses.field(default_factory=dict, hash=False)

    name = "diff_mvae"
    apart_from_training = ("given", "codec", "diffused")
    objective: ClassVar[dict] = {"weighting": "likelihood"}

    def decoded(self, modality: Modality) -> Modality:
        """Return the modality with the codec that this method gives it."""
        if not self._is_diffused(modality):
            return super().decoded(modality)
        options, where = self.codec, self._of("codec")
        if _names_diffusion(modality):
            options, where = modality.codec.network, f"modality {modality.name!r}: codec.network"
        decoder = options.get("decoder", {})
        require(isinstance(decoder, Mapping), f"{where}.decoder", decoder, "a group of options, or nothing")
        decoder = {**self.objective, **decoder}
        return dataclasses.replace(modality, codec=CodecConfig("diffusion", {**options, "decoder": decoder}))

    def check(self, modalities: tuple[Modality, ...]) -> None:
        """Raise `SbmError` if no modality has a diffusion decoder."""
        if any(map(self._is_diffused, modalities)):
            return
        lacking = "no modality is an image with a Gaussian or Laplace likelihood, as the default requires"
        if self.diffused:
            lacking = f"none of {', '.join(self.diffused)} is modelled (config.joint)"
        raise SbmError(
            f"method {self.name!r}: {lacking}. Name others in {self._of('diffused')}, or choose 'mopoe_star'."
        )

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` for a modality that the experiment lacks; see `method.NamesModalities`."""
        for name in self.diffused:
            if name not in names:
                raise unknown(f"modality ({self._of('diffused')}):", name, names)

    def _is_diffused(self, modality: Modality) -> bool:
        chosen = modality.name in self.diffused if self.diffused else is_picture(modality)
        return chosen or _names_diffusion(modality)


def _names_diffusion(modality: Modality) -> bool:
    """Return whether a modality chooses the diffusion codec itself, whatever the method."""
    return modality.codec.name == "diffusion"


@checked_dataclass
class DiffMvaeStar(DiffMvae):
    """Diff-MVAE*: Diff-MVAE trained on the squared error of ε̂ at 1,000 discrete times, as in DDPM."""

    name = "diff_mvae_star"
    objective: ClassVar[dict] = {"weighting": "noise", "num_times": 1000}


@checked_dataclass
class Mmvae(Joining):
    """MMVAE: the mixture of the experts. Its authors use K = 10 to 30 and ``"dreg"``, decoding M K latents per row.

    Attributes:
      beta: weight of the KL divergences of ``"elbo"``.
      posterior: family of the experts, a key of `distributions.POSTERIORS`.
      estimator: ``"elbo"``, ``"iwae"`` or ``"dreg"``.
      num_samples: K, importance samples.
    """

    beta: float = 1.0
    posterior: str = "laplace_with_softmax"
    estimator: str = "iwae"
    num_samples: int = 1

    name = "mmvae"
    is_mixture = mixes_given = True

    def __post_init__(self):
        super().__post_init__()
        self._least(beta=0, num_samples=1)
        self._choices(posterior=POSTERIORS, estimator=ESTIMATORS)
        if self.estimator != "elbo":
            self._refuse_unused("beta", f"with the estimator {self.estimator!r}")
            return
        self._refuse_unused("num_samples", "with the estimator 'elbo'")
        if self.posterior != "normal":
            raise SbmError(
                f"{self._of('estimator')} 'elbo' needs Gaussian posteriors: set posterior to 'normal', or use 'iwae' "
                "or 'dreg'."
            )

    def subsets(self, num_modalities: int) -> np.ndarray:
        """Return each modality alone."""
        return np.eye(num_modalities, dtype=bool)

    def terms(self, key: Key, encoded: Encoded) -> BoundTerms | Array:
        """Return the per-row loss [B] of the importance-weighted bound, or the terms of the ELBO."""
        if self.estimator == "elbo":
            return self._mixture_terms(key, encoded, self.beta)
        noise_key, _ = jax.random.split(key)
        (experts, decoding, params, present), number = encoded, encoded.num_modalities
        noise = self.noise(noise_key, (number, self.num_samples, encoded.batch, experts[0].shape[-1]))
        family = Family(self.posterior, self.estimator)
        return mmvae_terms(*experts, decoding, noise, params["prior"], family, present)


@checked_dataclass
class MmvaePlus(Joining):
    """MMVAE+: the mixture of the experts, with a private latent for each modality.

    Attributes:
      beta: weight of the divergences.
      posterior: family of the experts, a key of `distributions.POSTERIORS`.
      estimator: ``"iwae"`` or ``"dreg"``.
      num_samples: K, importance samples.
      private_size: size of each modality's private latent.
      private_prior: prior of an unobserved modality's private latent in sampling: ``"standard"``, that of the bound, as
        its authors do, or ``"own"``, the trained one used for cross-modal reconstruction.
    """

    latent_size: int = 32
    beta: float = 2.5
    posterior: str = "laplace_with_softmax"
    estimator: str = "iwae"
    num_samples: int = 1
    private_size: int = 32
    private_prior: str = "standard"

    name = "mmvae_plus"
    apart_from_training = ("private_prior",)
    is_mixture = mixes_given = True

    def __post_init__(self):
        super().__post_init__()
        self._least(beta=0, num_samples=1, private_size=1)
        self._choices(posterior=POSTERIORS, estimator=ESTIMATORS[1:], private_prior=PRIVATE_PRIORS)

    def subsets(self, num_modalities: int) -> np.ndarray:
        """Return each modality alone."""
        return np.eye(num_modalities, dtype=bool)

    def terms(self, key: Key, encoded: Encoded) -> Array:
        """Return the per-row loss [B] of the importance-weighted bound."""
        noise_key, _ = jax.random.split(key)
        (experts, decoding, params, present), number = encoded, encoded.num_modalities
        size = experts[0].shape[-1] - self.private_size
        noise = [
            self.noise(jax.random.fold_in(noise_key, i), (self.num_samples, encoded.batch, entries))
            for i, entries in enumerate([size, *[self.private_size] * number] * number)
        ]
        (mean, own_mean), (raw, own_raw) = (jnp.split(array, [size], axis=-1) for array in experts)
        family = Family(self.posterior, self.estimator)
        priors = params["private_priors"]
        return mmvae_plus_terms(mean, raw, own_mean, own_raw, decoding, noise, priors, self.beta, family, present)


JOININGS = (Mvae, Mmvae, Mopoe, MopoeStar, DiffMvae, DiffMvaeStar, Mvtcae, MmvaePlus)


def random_subsets(key: Key, number: int, num_modalities: int) -> Array:
    """Draw bool [number, M]: sizes uniform in 2 to M - 1, sets uniform given their size; none if M < 3."""
    size_key, order_key = jax.random.split(key)
    if num_modalities < 3:
        return jnp.ones((0, num_modalities), bool)
    sizes = jax.random.randint(size_key, (number, 1), 2, num_modalities)
    order = jnp.argsort(jax.random.uniform(order_key, (number, num_modalities)), axis=1)
    return order < sizes
