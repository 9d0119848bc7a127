"""EB-MVAE: an energy or a vector field over the joint latents of unimodal VAEs, sampled by Langevin dynamics.

The predecessor of SBM-VAE has no diffusion: a perceptron over all modalities models the score of the latents. It uses
the same sampler as all other systems, with a stationary process.

Reference: "Energy-Based Multimodal VAEs", NeurIPS workshop on score-based methods, 2022.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.implicit_score_matching import TRACES, implicit_score_terms
from sbm_jax.networks.energy import JointPerceptron
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sde import SDE
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import Sbm, fields_of
from sbm_jax.types import Array, Context, Key, Metrics, Params, ScoreFn, Stage, TrainingConfig

FORMS = ("field", "energy")


@checked_dataclass
class EbMvaeConfig:
    """The model of the joint latents, and its sampler.

    Attributes:
      training: see `types.TrainingConfig`.
      width: units of a hidden layer.
      depth: number of hidden layers.
      form: ``"field"``, a network that outputs the score (the paper), or ``"energy"``, whose negative gradient is the
        score.
      trace: one of `losses.implicit_score_matching.TRACES`.
      num_steps: steps of Langevin dynamics.
      step_size: λ of Eq. 3, in standard deviations of the latents.
    """

    training: TrainingConfig = TrainingConfig()
    width: int = 512
    depth: int = 3
    form: str = "field"
    trace: str = "hutchinson"
    num_steps: int = 40
    step_size: float = 0.3

    def __post_init__(self):
        for name in ("width", "depth", "num_steps"):
            require(getattr(self, name) >= 1, f"methods.eb_mvae.{name}", getattr(self, name), "at least 1")
        require(self.step_size > 0, "methods.eb_mvae.step_size", self.step_size, "a positive number")
        for name, known in (("form", FORMS), ("trace", TRACES)):
            if getattr(self, name) not in known:
                raise unknown(f"{name} (config.methods.eb_mvae.{name})", getattr(self, name), known)


@dataclasses.dataclass(frozen=True)
class Stationary:
    """A stationary process: sampling starts from N(0, I), and the score is the same at all times."""

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (α, σ) = (1e-6, 1) at all times, so that sampling starts from N(0, I)."""
        return jnp.full_like(t, 1e-6), jnp.ones_like(t)

    def drift(self, t: Array) -> Array:
        """Return 0."""
        return jnp.zeros_like(t)

    def diffusion_squared(self, t: Array) -> Array:
        """Return 0."""
        return jnp.zeros_like(t)

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Raise `SbmError`, because the process does not depend on time."""
        del half_log_snr
        raise SbmError("a stationary process has no time for a given signal-to-noise ratio; use the grid 'uniform'.")


@dataclasses.dataclass(frozen=True)
class EbMvae(Sbm):
    """An energy-based multimodal VAE.

    Attributes:
      energy: see `EbMvaeConfig`.
    """

    energy: EbMvaeConfig = EbMvaeConfig()

    has_likelihood = False  # the energy is not normalised

    @property
    def score_stage_name(self) -> str:
        """The name of the stage that trains the energy."""
        return f"joint_energy_{self.latent_space.autoencoder}"

    @property
    def sde(self) -> SDE:
        """The stationary process."""
        return Stationary()

    @property
    def network(self) -> JointPerceptron:
        """The vector field or the energy."""
        outputs = 1 if self.energy.form == "energy" else self.latent_space.valid.size
        return JointPerceptron(self.energy.width, self.energy.depth, outputs, self.token_sizes)

    def own_options(self, options: SamplerOptions) -> SamplerOptions:
        """Return Langevin dynamics (Eqs. 2 and 3), with the given `unroll`, `chunk_size` and `divergence_bound`."""
        return SamplerOptions(
            solver="langevin",
            num_steps=self.energy.num_steps,
            grid="uniform",
            conditioning="clean",
            snr=self.energy.step_size / 2**0.5,  # z + η s + √(2η) ε with η = λ² / 2
            unroll=options.unroll,
            chunk_size=options.chunk_size,
            divergence_bound=options.divergence_bound,
        )

    def check_score(self, options: SamplerOptions) -> None:
        """Accept everything: there is no score model, and a perceptron takes any shape."""

    def make_score_stage(self) -> Stage:
        """Return the stage that trains the energy, which needs only the latent bank."""
        settings = plain(self.energy)
        for name in ("num_steps", "step_size"):  # sampler options
            del settings[name]
        return Stage(
            name=self.score_stage_name,
            settings={
                "seed": self.seed,
                "energy": settings,
                "posterior": self.config.score.posterior,
                **self.joint_settings,
            },
            requires=(self.latent_space.bank_stage,),
            init=lambda key, upstream: self.network.init(key, jnp.zeros((1, *self.latent_space.valid.shape)))["params"],
            loss=self._energy_loss,
            rows=lambda upstream: self._complete(upstream, "train"),
            validation_rows=lambda upstream: self._complete(upstream, "validation"),
            training=self.energy.training,
        )

    def _complete(self, upstream: Mapping[str, Params], split: str) -> dict[str, Array]:
        """Return the complete rows of the bank: the score of a part of a row is not a part of the joint score.

        Raises:
          SbmError: if the train split has fewer complete rows than a batch, or the validation split has none.
        """
        bank = dict(self.latent_space.bank(upstream, split))
        if "present" not in bank:
            return bank
        complete = np.asarray(bank.pop("present")).all(axis=1)
        least = self.energy.training.batch_size if split == "train" else 1
        if complete.sum() < least:
            raise SbmError(
                f"system {self.name!r} trains its energy on complete rows and needs {least} or more in the {split} "
                f"split, which has {complete.sum()}; add some, or leave the system out."
            )
        return {name: array[complete] for name, array in bank.items()}

    def _energy_loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Array]
    ) -> tuple[Array, Metrics]:
        posterior_key, trace_key = jax.random.split(key)
        nothing = jnp.zeros((len(batch["mean"]), len(self.modalities)), bool)
        z = self.training_latents(posterior_key, upstream, batch, nothing)
        valid = self.latent_space.valid
        z = jnp.where(jnp.asarray(valid)[None], z, 0.0)
        terms = implicit_score_terms(lambda z: self._score(params, z), trace_key, z, valid, self.energy.trace)
        return terms.mean(), {}

    def _score(self, params: Params, z: Array) -> Array:
        def output(z: Array) -> Array:
            return self.network.apply({"params": params}, z)

        score = -jax.grad(lambda z: output(z).sum())(z) if self.energy.form == "energy" else output(z).reshape(z.shape)
        return jnp.where(jnp.asarray(self.latent_space.valid)[None], score, 0.0)

    def _bind(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
    ) -> ScoreFn:
        """Return the score of the latents, the same at all times."""
        del z_observed, options
        params = products[self.score_stage_name]
        return lambda key, z, t: jnp.where(context.free, self._score(params, z), 0.0)


def _make(name: str, shared: Shared, eb_mvae: EbMvaeConfig) -> EbMvae:
    return EbMvae(**fields_of(name, shared), energy=eb_mvae)


METHODS = (Method("eb_mvae", _make, {"eb_mvae": EbMvaeConfig}),)
