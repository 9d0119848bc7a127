"""SBM-VAE-C and SBM-RAE-C: energy-based coherence guidance.

Noise-contrastive estimation trains an energy model of pairs of diffused latents on the latent bank of the plain system,
independently of the score model, which both systems share. Sampling follows the score minus the gradient of the energy
between observed and unobserved modalities.

Reference: D. Wesego and P. Rooshenas, "Score-Based Multimodal Autoencoder", 2023, section 2.2.1.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sbm_jax import parameterization
from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.masked import masked_mean
from sbm_jax.losses.noise_contrastive import draw_pairs, noise_contrastive_terms, usable
from sbm_jax.networks.energy import PairEnergies, PairEnergy
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sampling.guidance import PAIRS, energy_guidance
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import AUTOENCODERS, Sbm, fields_of, strength_of_rows
from sbm_jax.tokens import by_token
from sbm_jax.types import Array, Context, Dataset, Key, Metrics, Params, ScoreTransform, Stage, TrainingConfig


@checked_dataclass
class EnergyConfig:
    """The energy model and its guidance.

    Attributes:
      training: see `types.TrainingConfig`.
      width: units of a hidden layer.
      depth: number of hidden layers.
      separate: one network per pair of modalities, as in the paper for CelebAMask-HQ, instead of one for all pairs.
      probability_clean: how often the observed latent of a training pair is clean, as in sampling with a time for each
        modality; otherwise it is diffused to the time of the other, as in the paper.
      gaussian_weight: share of Gaussian negatives; 0.5 in the authors' code, 0 in the paper.
      strength: γ per sample, the default of `generate`'s `strength`; the paper's 1000 and 2000 are 3.9 and 7.8.
      pairs: ``"random"``, one pair for each row and evaluation, or ``"all"``.
    """

    training: TrainingConfig = TrainingConfig()
    width: int = 256
    depth: int = 4
    separate: bool = False
    probability_clean: float = 0.5
    gaussian_weight: float = 0.0
    strength: float = 1.0
    pairs: str = "all"

    def __post_init__(self):
        for name in ("width", "depth"):
            require(getattr(self, name) >= 1, f"methods.sbm_c.{name}", getattr(self, name), "at least 1")
        for name in ("probability_clean", "gaussian_weight"):
            require(0 <= getattr(self, name) <= 1, f"methods.sbm_c.{name}", getattr(self, name), "0 to 1")
        require(
            self.training.batch_size >= 2, "methods.sbm_c.training.batch_size", self.training.batch_size, "2 or more"
        )
        if self.pairs not in PAIRS:
            raise unknown("choice of pairs (config.methods.sbm_c.pairs)", self.pairs, PAIRS)


@dataclasses.dataclass(frozen=True)
class SbmEnergy(Sbm):
    """A score-based multimodal autoencoder with energy-based guidance.

    Attributes:
      energy: see `EnergyConfig`.
    """

    energy: EnergyConfig = EnergyConfig()

    has_likelihood = False  # guidance changes the distribution

    def __post_init__(self):
        if len(self.modalities) < 2:
            raise SbmError(f"system {self.name!r} needs two modalities or more. Add one, or leave the system out.")

    @property
    def energy_stage(self) -> str:
        """The name of the stage that trains the energy model."""
        return f"energy_{self.latent_space.autoencoder}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return *super().stage_names, self.energy_stage

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the plain system, then that of the energy model."""
        score = plain(self.config.score)
        recipe = {name: value for name, value in plain(self.energy).items() if name not in ("strength", "pairs")}
        stage = Stage(
            name=self.energy_stage,
            settings={
                "seed": self.seed,
                "energy": recipe,
                "sde": score["sde"],
                "posterior": score["posterior"],
                **self.joint_settings,
            },
            requires=(self.latent_space.bank_stage,),
            init=lambda key, upstream: self._init_energy(key),
            loss=self._energy_loss,
            rows=lambda upstream: self.latent_space.bank(upstream, "train"),
            validation_rows=lambda upstream: self.latent_space.bank(upstream, "validation"),
            training=self.energy.training,
        )
        return [*super().stages(dataset), stage]

    @property
    def _network(self) -> PairEnergy:
        network = PairEnergies if self.energy.separate else PairEnergy
        return network(self.energy.width, self.energy.depth, self.token_sizes, self.owner)

    def _init_energy(self, key: Key) -> Params:
        z, t = jnp.zeros((1, *self.latent_space.valid.shape)), jnp.zeros((1, len(self.modalities)))
        return self._network.init(key, z, t, z, t, jnp.zeros((1, 1, 2), jnp.int32))["params"]

    def pair_energy(
        self, params: Params, observed: Array, observed_t: Array, free: Array, free_t: Array, pairs: Array
    ) -> Array:
        """Return the energies [B, P] of pairs of diffused latents; see `networks.energy.PairEnergy`."""

        def scaled(z: Array, t: Array) -> Array:
            alpha, sigma = (by_token(value, self.owner)[:, :, None] for value in self.sde.marginal(t))
            return parameterization.scaled(z, alpha, sigma)

        latents = scaled(observed, observed_t), observed_t, scaled(free, free_t), free_t
        return self._network.apply({"params": params}, *latents, pairs)

    def _energy_loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Array]
    ) -> tuple[Array, Metrics]:
        draw_key, posterior_key = jax.random.split(key)
        present = batch.get("present")
        draws = draw_pairs(draw_key, batch["mean"].shape, self.energy.probability_clean, present, self.owner)
        given = jax.nn.one_hot(draws.pair[:, 0], len(self.modalities), dtype=bool) & draws.clean[:, None]
        loss, told_apart = noise_contrastive_terms(
            lambda *arguments: self.pair_energy(params, *arguments),
            self.score_model.sde,
            self.training_latents(posterior_key, upstream, batch, given),
            self.training_latents(posterior_key, upstream, batch, jnp.zeros_like(given)),
            jnp.asarray(self.latent_space.valid),
            draws,
            self.energy.gaussian_weight,
            self.owner,
        )
        rows = usable(draws, present)
        return masked_mean(loss, rows), {"told_apart": masked_mean(told_apart, rows)}

    def _strength(self, strength: Array | float | None, num_rows: int) -> Array:
        return strength_of_rows(strength, self.energy.strength, num_rows)

    def _transforms(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
        strength: Array,
    ) -> tuple[ScoreTransform, ...]:
        del context, z_observed

        def energy_fn(z: Array, t: Array, pairs: Array) -> Array:
            return self.pair_energy(products[self.energy_stage], z, t, z, t, pairs)

        if options.conditioning == "particles":
            strength = jnp.repeat(strength, options.num_particles)
        return (energy_guidance(energy_fn, strength, self.energy.pairs),)


def _make(name: str, shared: Shared, sbm_c: EnergyConfig) -> SbmEnergy:
    return SbmEnergy(**fields_of(name, shared), energy=sbm_c)


METHODS = tuple(Method(f"sbm_{autoencoder}_c", _make, {"sbm_c": EnergyConfig}) for autoencoder in AUTOENCODERS)
