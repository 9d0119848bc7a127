"""Stage II of score-based multimodal autoencoders: a score model of the joint latents, and its training."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.score_matching import WEIGHTINGS, Draws, denoising_terms, draw
from sbm_jax.networks.score import ScoreModel, ScoreNetworkConfig, make_score_model
from sbm_jax.sampling import CONDITIONINGS, SamplerOptions, sample
from sbm_jax.sde import SDE, SDEConfig, make_sde
from sbm_jax.systems.latents import sample_posterior, token_owners, token_sizes
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.tokens import Owner, by_token
from sbm_jax.types import (
    Array,
    Context,
    Dataset,
    Key,
    Metrics,
    Modality,
    Params,
    Stage,
    TrainingConfig,
)

# MARK: Options


@checked_dataclass
class ScoreConfig:
    """Options of stage II.

    Attributes:
      training: see `types.TrainingConfig`.
      network: architecture and size of the score network.
      sde: forward process.
      prediction: what the network predicts, one of `parameterization.PREDICTIONS`.
      weighting: λ(t), a key of `losses.score_matching.WEIGHTINGS`. The paper uses ``"noise"``, which hardly learns
        what a short latent reveals about a long one (`python -m benchmarks.unequal_latents --weighting=noise`).
      probability_none: probability that nothing is observed in training; 1 is the paper's objective, with one time.
      probability_alone: probability that the network sees each modality alone, which marginal guidance needs.
      posterior: ``"sample"`` (posterior samples, but means for observed modalities, as in sampling) or ``"mean"``.
    """

    training: TrainingConfig = TrainingConfig()
    network: ScoreNetworkConfig = ScoreNetworkConfig()
    sde: SDEConfig = SDEConfig()
    prediction: str = "velocity"
    weighting: str = "velocity"
    probability_none: float = 0.2
    probability_alone: float = 0.0
    posterior: str = "sample"

    def __post_init__(self):
        where = "score model:"  # in `config.score` or the options of a method; unknown here
        require(0 <= self.probability_none <= 1, f"{where} probability_none", self.probability_none, "0 to 1")
        require(
            0 <= self.probability_alone < 1, f"{where} probability_alone", self.probability_alone, "0 to less than 1"
        )
        if self.weighting not in WEIGHTINGS:
            raise unknown(f"{where} weighting", self.weighting, WEIGHTINGS)
        if self.posterior not in ("sample", "mean"):
            raise unknown(f"{where} posterior", self.posterior, ("sample", "mean"))


@dataclasses.dataclass(frozen=True)
class SbmConfig:
    """Options of both stages of a score-based multimodal autoencoder."""

    autoencoder: AutoencoderConfig
    score: ScoreConfig


# MARK: The stage


@dataclasses.dataclass(frozen=True)
class ScoreOfLatents:
    """The score of the modalities' joint latents, and the stage that trains it.

    Systems that condition the score network on more than the latents override `_training_context`.

    Attributes:
      name: row of the results table.
      modalities: M modalities, in mask order.
      config: see `SbmConfig`.
      seed: the run's seed, part of every stage's fingerprint.
      regularised: True for RAEs, False for VAEs.
      batched: compute modalities with equal settings in one `vmap` (see `PerModality`); None for True except on CPU.
      encoded: modalities of stage I, if there are more (see `LatentSpace`).
    """

    name: str
    modalities: tuple[Modality, ...]
    config: SbmConfig
    seed: int = 0
    regularised: bool = False
    batched: bool | None = None
    encoded: tuple[Modality, ...] = ()

    @property
    def latent_space(self) -> LatentSpace:
        """Stage I: the latents that every modality is encoded to and decoded from."""
        return LatentSpace(
            self.modalities, self.config.autoencoder, self.seed, self.regularised, self.batched, self.encoded
        )

    @property
    def token_sizes(self) -> tuple[int, ...]:
        """The number of entries of each token, without padding."""
        return token_sizes(self.modalities)

    @property
    def owner(self) -> Owner:
        """The modality of each token."""
        return token_owners(self.modalities)

    @property
    def score_model(self) -> ScoreModel:
        """The score model over the joint latents."""
        score = self.config.score
        return make_score_model(score.network, make_sde(score.sde), score.prediction, self.token_sizes, self.owner)

    @property
    def sde(self) -> SDE:
        """The forward process of the latents."""
        return self.score_model.sde

    @property
    def score_stage_name(self) -> str:
        """The name of stage II; systems that use the same score model share it."""
        return f"score_sbm_{self.latent_space.autoencoder}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return *self.latent_space.stage_names, self.score_stage_name

    def check_score(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for a score model that cannot work or be sampled with these options."""
        model, context, key = self.score_model, self.context(1), jax.random.key(0)
        jax.eval_shape(lambda key: model.init(key, context), key)
        self._check_conditioning(options)
        if self.config.score.probability_alone and not model.network.gives_marginals:
            raise SbmError(
                f"score network {self.config.score.network.name!r} cannot see modalities alone: set probability_alone "
                "to 0, or use the transformer."
            )
        z = jnp.zeros((1, *self.latent_space.valid.shape))
        start = z if options.start == "gaussian" else None
        jax.eval_shape(
            lambda key: sample(lambda key, z, t: jnp.zeros_like(z), model.sde, key, z, context, options, (), start).z,
            key,
        )

    def _check_conditioning(self, options: SamplerOptions) -> None:
        """Raise `SbmError` if the score model was not trained for a conditioning."""
        own_times = CONDITIONINGS[options.conditioning].own_times
        if own_times and self.config.score.probability_none == 1 and len(self.modalities) > 1:
            raise SbmError(
                "a score model trained with a single time (probability_none of 1) never saw an observed modality, so "
                f"conditioning {options.conditioning!r} would be wrong; use 'clean', 'replacement', 'reference' or "
                "'particles', or train with probability_none below 1."
            )

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the codecs, the latent bank and the score model."""
        return [*self.latent_space.stages(dataset), self.make_score_stage()]

    def make_score_stage(self) -> Stage:
        """Return stage II, which needs only the latent bank."""
        return Stage(
            name=self.score_stage_name,
            settings={"seed": self.seed, "score": plain(self.config.score), **self.joint_settings},
            requires=(self.latent_space.bank_stage,),
            init=lambda key, upstream: self.score_model.init(key, self.context(1)),
            loss=self._score_loss,
            rows=lambda upstream: self.latent_space.bank(upstream, "train"),
            validation_rows=lambda upstream: self.latent_space.bank(upstream, "validation"),
            validation_loss=functools.partial(self._score_loss, train=False),
            training=self.config.score.training,
        )

    @property
    def joint_settings(self) -> dict[str, list[str]]:
        """Settings that fingerprint a stage over a subset of the encoded modalities; {} for all of them."""
        return {"joint": [modality.name for modality in self.modalities]} if self.encoded else {}

    def context(self, batch: int) -> Context:
        """Return the context of a batch in which nothing is observed."""
        nothing = jnp.zeros((batch, len(self.modalities)), bool)
        return Context(nothing, jnp.asarray(self.latent_space.valid), owner=self.owner)

    def _score_loss(
        self,
        params: Params,
        upstream: Mapping[str, Params],
        key: Key,
        batch: Mapping[str, Array],
        train: bool = True,
    ) -> tuple[Array, Metrics]:
        config, model = self.config.score, self.score_model
        draw_key, posterior_key, dropout_key, context_key = jax.random.split(key, 4)
        chances = config.probability_none, config.probability_alone
        draws = draw(draw_key, batch["mean"].shape, *chances, batch.get("present"), self.owner)
        z = self.training_latents(posterior_key, upstream, batch, draws.observed)
        dropout_key = dropout_key if train and config.network.dropout else None

        def noise_fn(z_t, t, context):
            return model.noise(params, z_t, t, context, dropout_key)

        context = self._training_context(context_key, batch, draws)
        weighted, error = denoising_terms(noise_fn, model.sde, z, context, draws, config.weighting)
        return weighted.mean(), {"noise_error": error.mean()}

    def training_latents(
        self, key: Key, upstream: Mapping[str, Params], batch: Mapping[str, Array], observed: Array
    ) -> Array:
        """Return standardised latents [B, N, D] of bank rows: means where observed, otherwise posterior samples."""
        z = batch["mean"]
        if self.config.score.posterior == "sample":
            z = jnp.where(by_token(observed, self.owner)[:, :, None], z, sample_posterior(key, z, batch["std"]))
        return self.latent_space.statistics(upstream).standardise(z)

    def _training_context(self, key: Key, batch: Mapping[str, Array], draws: Draws) -> Context:
        """Return the context of the score network; `denoising_terms` sets its observed set to that of the draws.

        Modalities that a row lacks are absent. Trained on incomplete rows, the network learns the scores of their
        marginal distributions and, from enough different ones, the joint score.
        """
        del key, draws
        return self.context(len(batch["mean"])).replace(present=batch.get("present"))
