"""SBM-VAE-M and SBM-RAE-M: guidance by the score network's own marginal scores.

A network that has learned the joint score s and the score s_m of each modality alone gives, without a second model,

    s̃(z, t) = s(z, t) + w (s(z, t) - Σ_m s_m(z_m, t)) = ∇ log [p_t(z) (p_t(z) / Π_m p_t(z_m))^w],

at the cost of one more evaluation, in which no modality sees another. It favours what the modalities share: they agree
more often, whether some of them or none are observed, at the expense of diversity. With one unobserved modality it is
classifier-free guidance. It is not in the papers.

The samples do not follow the tilted distribution p (p / Π_m p_m)^w of clean latents: s̃ is the score of the tilted
diffused densities, which differs from the score of the diffused tilted density (unless w = 0). As with classifier-free
guidance, choose w by its effect on coherence and diversity.

Reference: J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022. https://arxiv.org/abs/2207.12598
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sampling.guidance import classifier_free
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import AUTOENCODERS, Sbm, fields_of, strength_of_rows
from sbm_jax.types import Array, Context, Params, ScoreTransform


@checked_dataclass
class MarginalConfig:
    """Options of marginal guidance.

    Attributes:
      strength: w, the default of `generate`'s `strength`.
    """

    strength: float = 1.0

    def __post_init__(self):
        require(self.strength >= 0, "methods.sbm_m.strength", self.strength, "0 or more")


@dataclasses.dataclass(frozen=True)
class SbmMarginal(Sbm):
    """A score-based multimodal autoencoder with marginal guidance.

    Attributes:
      marginal: see `MarginalConfig`.
    """

    marginal: MarginalConfig = MarginalConfig()

    evaluations_per_score = 2

    has_likelihood = False  # guidance changes the distribution

    def __post_init__(self):
        if not self.config.score.probability_alone:
            raise SbmError(
                f"system {self.name!r} needs a score network that has learned marginal scores: set "
                "config.score.probability_alone, for instance to 0.15."
            )

    def _strength(self, strength: Array | float | None, num_rows: int) -> Array:
        return strength_of_rows(strength, self.marginal.strength, num_rows)

    def _transforms(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
        strength: Array,
    ) -> tuple[ScoreTransform, ...]:
        """Return the guidance; its marginal scores come from a call in which no modality is present."""
        alone = context.replace(present=jnp.zeros_like(context.observed))
        marginal_fn = self._bind(products, alone, z_observed, options)
        if options.conditioning == "particles":
            strength = jnp.repeat(strength, options.num_particles)
        return (classifier_free(marginal_fn, strength),)


def _make(name: str, shared: Shared, sbm_m: MarginalConfig) -> SbmMarginal:
    return SbmMarginal(**fields_of(name, shared), marginal=sbm_m)


METHODS = tuple(Method(f"sbm_{autoencoder}_m", _make, {"sbm_m": MarginalConfig}) for autoencoder in AUTOENCODERS)
