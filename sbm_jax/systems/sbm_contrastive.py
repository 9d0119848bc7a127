"""SBM-VAE-T and SBM-RAE-T: contrastive guidance.

Contrastive learning trains encoders of all modalities into one embedding space. The score network is conditioned on the
mean embedding of the observed modalities, and trained with random observed sets, including the empty one. Sampling
extrapolates from the unconditional to the conditional score: (1 + w) s(z | o) - w s(z).

Reference: D. Wesego and P. Rooshenas, "Score-Based Multimodal Autoencoder", 2023, section 2.2.2.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, require
from sbm_jax.losses.score_matching import Draws, random_observed, random_present
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.sampling import CONDITIONINGS, SamplerOptions
from sbm_jax.sampling.guidance import classifier_free
from sbm_jax.systems.contrastive_encoders import ContrastiveEncoders
from sbm_jax.systems.latents import encode_rows
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import AUTOENCODERS, Sbm, fields_of, strength_of_rows
from sbm_jax.types import (
    Array,
    Context,
    Data,
    Dataset,
    Key,
    Params,
    ScoreTransform,
    Split,
    Stage,
    TrainingConfig,
)


@checked_dataclass
class ContrastiveConfig:
    """The contrastive encoders and their guidance.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders.
      embedding_size: E.
      dropout: dropout rate in the projection heads.
      temperature: initial value of the learned temperature.
      probability_none: probability of training with an empty embedding, for score models with a single time, which have
        no observed sets; others use `ScoreConfig.probability_none`.
      probability_absent: probability that a random set of modalities is absent in a row in which nothing is observed.
      strength: w, the default of `generate`'s `strength`.
    """

    training: TrainingConfig = TrainingConfig()
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    embedding_size: int = 64
    dropout: float = 0.1
    temperature: float = 0.07
    probability_none: float = 0.2
    probability_absent: float = 0.5
    strength: float = 1.0

    def __post_init__(self):
        require(self.embedding_size >= 2, "methods.sbm_t.embedding_size", self.embedding_size, "2 or more")
        require(self.temperature > 0, "methods.sbm_t.temperature", self.temperature, "a positive number")
        require(0 <= self.dropout < 1, "methods.sbm_t.dropout", self.dropout, "0 to less than 1")
        for name in ("probability_none", "probability_absent"):
            require(0 <= getattr(self, name) <= 1, f"methods.sbm_t.{name}", getattr(self, name), "0 to 1")
        require(
            self.training.batch_size >= 2, "methods.sbm_t.training.batch_size", self.training.batch_size, "2 or more"
        )


@dataclasses.dataclass(frozen=True)
class SbmContrastive(Sbm):
    """A score-based multimodal autoencoder with contrastive guidance.

    Attributes:
      contrastive: see `ContrastiveConfig`.
    """

    contrastive: ContrastiveConfig = ContrastiveConfig()

    has_likelihood = False  # guidance changes the distribution

    def __post_init__(self):
        if len(self.modalities) < 2:
            raise SbmError(f"system {self.name!r} needs two modalities or more. Add one, or leave the system out.")
        self.encoders.check(f"system {self.name!r}")

    encoder_stage = "contrastive"
    embedding_stage = "embeddings"
    evaluations_per_score = 2

    @property
    def score_stage_name(self) -> str:
        """The name of stage II, whose score model is conditioned on embeddings."""
        return f"score_sbm_{self.latent_space.autoencoder}_t"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return *super().stage_names, self.encoder_stage

    @property
    def encoders(self) -> ContrastiveEncoders:
        """The encoders of all modalities."""
        config = self.contrastive
        sizes = config.network, config.embedding_size, config.dropout, config.temperature
        return ContrastiveEncoders(self.modalities, *sizes, batched=self.latent_space.computes_batched)

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the codecs, the latent bank, the encoders, the embedding bank and the score model."""
        *latents, score = super().stages(dataset)
        score = dataclasses.replace(
            score,
            settings={**score.settings, **self._recipe("probability_none", "probability_absent")},
            requires=(self.latent_space.bank_stage, self.embedding_stage),
            rows=lambda upstream: self._bank_rows(upstream, "train"),
            validation_rows=lambda upstream: self._bank_rows(upstream, "validation"),
        )
        return [*latents, *self._encoder_stages(dataset), score]

    def _recipe(self, *names: str) -> dict:
        return {name: plain(getattr(self.contrastive, name)) for name in names}

    def _bank_rows(self, upstream: Mapping[str, Params], split: str) -> dict[str, Array]:
        return {**self.latent_space.bank(upstream, split), "embeddings": upstream[self.embedding_stage][split]}

    def _encoder_stages(self, dataset: Dataset) -> list[Stage]:
        config, encoders = self.contrastive, self.encoders
        chunk = config.training.batch_size
        settings = {"seed": self.seed, "data": dataset.settings}
        settings |= self._recipe("training", "network", "dropout", "temperature")
        training = encoders.stage(
            self.encoder_stage,
            settings,
            config.training,
            lambda split: self.latent_space.rows(getattr(dataset, split)),
        )

        def embed(params: Params, split: Split) -> Array:
            embeddings = encode_rows(
                lambda params, rows: encoders.embeddings(params, in_units(rows["data"])),
                *(params, self.latent_space.rows(split), chunk),
            )
            present = split.presence([modality.name for modality in self.latent_space.modalities])
            return embeddings if present is None else jnp.where(present[:, :, None], embeddings, 0.0)

        def bank(params: Params) -> Params:
            return {"train": embed(params, dataset.train), "validation": embed(params, dataset.validation)}

        computed = Stage(
            name=self.embedding_stage,
            settings={},
            requires=(self.encoder_stage,),
            init=lambda key, upstream: bank(upstream[self.encoder_stage]),
        )
        return [training, computed]

    def mean_embedding(self, embeddings: Array, observed: Array) -> Array:
        """Return the mean embedding of observed modalities [B, E], scaled to entries of about unit size; 0 for none.

        Args:
          embeddings: unit vectors [B, M, E].
          observed: bool [B, M].
        """
        total = jnp.sum(jnp.where(observed[:, :, None], embeddings, 0.0), axis=1)
        count = jnp.maximum(observed.sum(axis=1, keepdims=True), 1)
        return total / count * self.contrastive.embedding_size**0.5

    def context(self, batch: int) -> Context:
        """Return the context of a batch in which nothing is observed."""
        context = super().context(batch)
        return context.replace(
            present=jnp.ones_like(context.observed), embedding=jnp.zeros((batch, self.contrastive.embedding_size))
        )

    def _training_context(self, key: Key, batch: Mapping[str, Array], draws: Draws) -> Context:
        """Return the context with the embedding of the observed modalities, and which modalities are present.

        With a single time (`probability_none` = 1) no latent is ever observed: a random set is embedded, as in the
        paper, and all modalities of the row are present.
        """
        embedded, own = draws.observed, batch.get("present")
        present = jnp.ones_like(embedded) if own is None else own
        if self.config.score.probability_none == 1:
            embedded = random_observed(key, *embedded.shape, self.contrastive.probability_none, own)
        else:
            present = present & random_present(key, draws.observed, self.contrastive.probability_absent)
        embedding = self.mean_embedding(batch["embeddings"], embedded)
        return self.context(len(embedding)).replace(present=present, embedding=embedding)

    # MARK: Use

    def _check_conditioning(self, options: SamplerOptions) -> None:
        super()._check_conditioning(options)
        if not CONDITIONINGS[options.conditioning].own_times and self.config.score.probability_none < 1:
            raise SbmError(
                f"system {self.name!r} was trained with a time for each modality, and with embeddings of observed "
                f"modalities only, but conditioning {options.conditioning!r} shows it none as observed. Use "
                "'per_modality', or train with config.score.probability_none = 1."
            )

    def _embed(self, products: Mapping[str, Params], data: Data, observed: Array) -> Array:
        if not data:
            return jnp.zeros((len(observed), self.contrastive.embedding_size))
        return self.mean_embedding(self.encoders.embeddings(products[self.encoder_stage], data), observed)

    def _strength(self, strength: Array | float | None, num_rows: int) -> Array:
        return strength_of_rows(strength, self.contrastive.strength, num_rows)

    def _transforms(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
        strength: Array,
    ) -> tuple[ScoreTransform, ...]:
        """Return classifier-free guidance.

        The unconditional score is that of the unobserved modalities alone, with the observed ones absent. A network
        with a single time sees all modalities, as always, but gets no embedding.
        """
        nothing = jnp.zeros_like(context.observed)
        present = ~context.observed if CONDITIONINGS[options.conditioning].own_times else jnp.ones_like(nothing)
        unobserved = context.replace(observed=nothing, present=present, embedding=jnp.zeros_like(context.embedding))
        unconditional_fn = self._bind(products, unobserved, z_observed, options)
        if options.conditioning == "particles":
            strength = jnp.repeat(strength, options.num_particles)
        return (classifier_free(unconditional_fn, strength),)


def _make(name: str, shared: Shared, sbm_t: ContrastiveConfig) -> SbmContrastive:
    return SbmContrastive(**fields_of(name, shared), contrastive=sbm_t)


METHODS = tuple(Method(f"sbm_{autoencoder}_t", _make, {"sbm_t": ContrastiveConfig}) for autoencoder in AUTOENCODERS)
