"""Score-based multimodal autoencoders: SBM-VAE and SBM-RAE.

Stage I trains one autoencoder per modality, independently. All training latents are then encoded once, into a bank.
Stage II trains one score model over the joint latents. Any modality is generated from any others by sampling the
latents of what is missing with those of what is observed held fixed.

Reference: D. Wesego and P. Rooshenas, "Score-Based Multimodal Autoencoder", 2023. https://openreview.net/forum?id=JbuP6UV3Fk
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import plain
from sbm_jax.data.pipeline import as_float
from sbm_jax.errors import require, unknown
from sbm_jax.losses.autoencoding import AutoencodingTerms, elbo_terms, rae_terms
from sbm_jax.losses.score_matching import WEIGHTINGS, denoising_terms, draw
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig, Autoencoders
from sbm_jax.networks.score import ScoreModel, ScoreNetworkConfig, make_score_model
from sbm_jax.sampling import SamplerOptions, bind_context, sample
from sbm_jax.sde import SDEConfig, make_sde
from sbm_jax.systems.latents import (
    LatentStatistics,
    latent_statistics,
    pack,
    sample_posterior,
    unpack,
    valid_entries,
)
from sbm_jax.types import (
    Array,
    Context,
    Data,
    Dataset,
    Generated,
    Key,
    Metrics,
    Modality,
    Params,
    Split,
    Stage,
    TrainingConfig,
)

# MARK: Options


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Stage I.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      beta: weight of the KL divergence (VAE).
      rae_beta: weight of ‖z‖² (RAE, Eq. 10).
      rae_noise: standard deviation of the noise added to z before decoding (RAE).
    """

    training: TrainingConfig
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    beta: float = 0.1
    rae_beta: float = 1e-5
    rae_noise: float = 0.01


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Stage II.

    Attributes:
      training: see `types.TrainingConfig`.
      network: the choice and size of the score network.
      sde: the forward process.
      prediction: what the network's output means, one of `networks.score.PREDICTIONS`.
      weighting: λ(t), a key of `losses.score_matching.WEIGHTINGS`.
      probability_none: how often nothing is observed in training; 1 is the paper's objective, with a single time.
      posterior: ``"sample"`` (posterior samples, an observed modality by its mean, as when sampling) or ``"mean"``.
    """

    training: TrainingConfig
    network: ScoreNetworkConfig = ScoreNetworkConfig()
    sde: SDEConfig = SDEConfig()
    prediction: str = "velocity"
    weighting: str = "noise"
    probability_none: float = 0.2
    posterior: str = "sample"

    def __post_init__(self):
        require(0 <= self.probability_none <= 1, "score.probability_none", self.probability_none, "0 to 1")
        if self.weighting not in WEIGHTINGS:
            raise unknown("weighting (config.score.weighting)", self.weighting, WEIGHTINGS)
        if self.posterior not in ("sample", "mean"):
            raise unknown("posterior (config.score.posterior)", self.posterior, ("sample", "mean"))


@dataclasses.dataclass(frozen=True)
class SbmConfig:
    """Both stages of a score-based multimodal autoencoder."""

    autoencoder: AutoencoderConfig
    score: ScoreConfig


# MARK: The system


@dataclasses.dataclass(frozen=True)
class Sbm:
    """SBM-VAE or SBM-RAE.

    Attributes:
      name: ``"sbm_vae"`` or ``"sbm_rae"``, the row of the results table.
      modalities: M modalities, in the order of every mask.
      config: see `SbmConfig`.
      seed: the run's seed, part of every stage's fingerprint.
      regularised: True for RAE.
      batched: compute modalities of equal shape by one `vmap` (see `Autoencoders`); None for all but CPU.
    """

    name: str
    modalities: tuple[Modality, ...]
    config: SbmConfig
    seed: int = 0
    regularised: bool = False
    batched: bool | None = None

    @property
    def autoencoders(self) -> Autoencoders:
        """The autoencoders of all modalities."""
        batched = jax.default_backend() != "cpu" if self.batched is None else self.batched
        return Autoencoders(self.modalities, self.config.autoencoder.network, batched)

    @property
    def score_model(self) -> ScoreModel:
        """The score model over the joint latents."""
        score = self.config.score
        return make_score_model(score.network, make_sde(score.sde), score.prediction)

    @property
    def stage_names(self) -> tuple[str, str, str]:
        """The names of the three stages: autoencoders, latent bank, score model."""
        kind = "rae" if self.regularised else "vae"
        return f"autoencoders_{kind}", f"latents_{kind}", f"score_{self.name}"

    @property
    def valid(self) -> np.ndarray:
        """Bool [M, D], False on the padding of shorter latents."""
        return valid_entries(self.modalities)

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for what can not work, by tracing shapes: nothing is computed."""
        model, context, key = self.score_model, self._context(1), jax.random.key(0)
        jax.eval_shape(self.autoencoders.init, key)
        jax.eval_shape(lambda key: model.init(key, context), key)
        z = jnp.zeros((1, *self.valid.shape))
        jax.eval_shape(
            lambda key: sample(lambda key, z, t: jnp.zeros_like(z), model.sde, key, z, context, options).z, key
        )

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the autoencoder stage, the latent bank and the score stage."""
        return [self._autoencoder_stage(dataset), self._latent_stage(dataset), self.score_stage()]

    def _autoencoder_stage(self, dataset: Dataset) -> Stage:
        config = self.config.autoencoder
        return Stage(
            name=self.stage_names[0],
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": plain(self.modalities),
                "autoencoder": plain(config),
                "regularised": self.regularised,
            },
            init=lambda key, upstream: self.autoencoders.init(key),
            loss=self._autoencoder_loss,
            rows=lambda upstream: self._rows(dataset.train),
            validation_rows=lambda upstream: self._rows(dataset.validation),
            training=config.training,
        )

    def _rows(self, split: Split) -> dict[str, np.ndarray]:
        return {modality.name: split.data[modality.name] for modality in self.modalities}

    def _autoencoder_loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Data
    ) -> tuple[Array, Metrics]:
        del upstream
        data = as_float(batch)
        terms = self.autoencoding_terms(params, key, data)
        weight = self.config.autoencoder.rae_beta if self.regularised else self.config.autoencoder.beta
        reconstruction = sum(term.reconstruction.mean() for term in terms.values())
        regulariser = sum(term.regulariser.mean() for term in terms.values())
        loss = reconstruction + weight * regulariser
        return loss, {"reconstruction": reconstruction, "regulariser": regulariser}

    def autoencoding_terms(self, params: Params, key: Key, data: Data) -> dict[str, AutoencodingTerms]:
        """Return the per-row terms of stage I's objective for each modality of `data` (float, [B, *shape])."""
        posteriors = self.autoencoders.encode(params, data)
        keys = dict(zip(posteriors, jax.random.split(key, len(posteriors)), strict=True))
        noise_std = self.config.autoencoder.rae_noise
        latents = {}
        for name, (mean, log_variance) in posteriors.items():
            std = noise_std if self.regularised else jnp.exp(0.5 * log_variance)
            latents[name] = sample_posterior(keys[name], mean, std)
        outputs = self.autoencoders.decode(params, latents)
        terms = {}
        for modality in self.modalities:
            name = modality.name
            if self.regularised:
                terms[name] = rae_terms(modality, data[name], outputs[name], posteriors[name][0])
            else:
                terms[name] = elbo_terms(modality, data[name], outputs[name], *posteriors[name])
        return terms

    def _latent_stage(self, dataset: Dataset) -> Stage:
        autoencoder, name, _ = self.stage_names
        return Stage(
            name=name,
            settings={},
            requires=(autoencoder,),
            init=lambda key, upstream: self._bank(upstream[autoencoder], dataset),
        )

    def _bank(self, params: Params, dataset: Dataset) -> Params:
        """Return posterior means and standard deviations [N, M, D] of both splits, and their statistics."""
        train, validation = (self._encode_split(params, split) for split in (dataset.train, dataset.validation))
        statistics = latent_statistics(train["mean"], train["std"], jnp.asarray(self.valid))
        return {
            "train": train,
            "validation": validation,
            "statistics": {"mean": statistics.mean, "std": statistics.std},
        }

    def _encode_split(self, params: Params, split: Split) -> dict[str, Array]:
        encode = jax.jit(lambda params, data: self._posterior(params, as_float(data)))
        rows = self._rows(split)
        chunk = min(self.config.autoencoder.training.batch_size, len(split))
        parts = []
        for start in range(0, len(split), chunk):
            # The last chunk starts early, to have the size that is compiled; its repeated rows are cut off.
            first = min(start, len(split) - chunk)
            mean, std = encode(params, {name: array[first : first + chunk] for name, array in rows.items()})
            parts.append((mean[start - first :], std[start - first :]))
        mean, std = (jnp.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return {"mean": mean, "std": std}

    def _posterior(self, params: Params, data: Data) -> tuple[Array, Array]:
        """Return packed posterior means and standard deviations [B, M, D]; the latter are 0 for RAE."""
        posteriors = self.autoencoders.encode(params, data)
        mean = pack({name: mean for name, (mean, _) in posteriors.items()}, self.modalities)
        if self.regularised:
            return mean, jnp.zeros_like(mean)
        std = {name: jnp.exp(0.5 * log_variance) for name, (_, log_variance) in posteriors.items()}
        return mean, pack(std, self.modalities)

    def score_stage(self) -> Stage:
        """Return stage II, which needs no data but the latent bank."""
        _, latents, name = self.stage_names
        config = self.config.score
        return Stage(
            name=name,
            settings={"seed": self.seed, "score": plain(config)},
            requires=(latents,),
            init=lambda key, upstream: self.score_model.init(key, self._context(1)),
            loss=self._score_loss,
            rows=lambda upstream: upstream[latents]["train"],
            validation_rows=lambda upstream: upstream[latents]["validation"],
            validation_loss=functools.partial(self._score_loss, train=False),
            training=config.training,
        )

    def _context(self, batch: int) -> Context:
        return Context(jnp.zeros((batch, len(self.modalities)), bool), jnp.asarray(self.valid))

    def _score_loss(
        self,
        params: Params,
        upstream: Mapping[str, Params],
        key: Key,
        batch: Mapping[str, Array],
        train: bool = True,
    ) -> tuple[Array, Metrics]:
        config, model = self.config.score, self.score_model
        statistics = LatentStatistics(**upstream[self.stage_names[1]]["statistics"])
        draw_key, posterior_key, dropout_key = jax.random.split(key, 3)
        draws = draw(draw_key, batch["mean"].shape, config.probability_none)
        z = batch["mean"]
        if config.posterior == "sample":
            z = jnp.where(draws.observed[:, :, None], z, sample_posterior(posterior_key, z, batch["std"]))
        dropout_key = dropout_key if train and config.network.dropout else None

        def noise_fn(z_t, t, context):
            return model.noise(params, z_t, t, context, dropout_key)

        context = self._context(len(z))
        weighted, error = denoising_terms(
            noise_fn, model.sde, statistics.standardise(z), context, draws, config.weighting
        )
        return weighted.mean(), {"noise_error": error.mean()}

    # MARK: Use

    def encode(self, products: Mapping[str, Params], data: Data) -> Array:
        """Return the packed posterior means [B, M, D] of float data, standardised as the score model sees them."""
        mean, _ = self._posterior(products[self.stage_names[0]], data)
        return jnp.where(jnp.asarray(self.valid)[None], self._statistics(products).standardise(mean), 0.0)

    def decode(self, products: Mapping[str, Params], z: Array) -> dict[str, Array]:
        """Return the expected data of packed, standardised latents [B, M, D]."""
        latents = unpack(self._statistics(products).restore(z), self.modalities)
        return self.autoencoders.decode_mean(products[self.stage_names[0]], latents)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the autoencoders' reconstruction, from the posterior means, of float data."""
        params = products[self.stage_names[0]]
        means = {name: mean for name, (mean, _) in self.autoencoders.encode(params, data).items()}
        return self.autoencoders.decode_mean(params, means)

    def _statistics(self, products: Mapping[str, Params]) -> LatentStatistics:
        return LatentStatistics(**products[self.stage_names[1]]["statistics"])

    def generate(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: SamplerOptions,
        num_samples: int = 1,
    ) -> Generated:
        """Generate what is not observed (section 2.1): encode, sample the joint latents, decode.

        Args:
          products: the stages' products by stage name.
          key: a typed key.
          data: {modality: float [B, *shape]}; what is unobserved is ignored and may be left out.
          observed: bool [B, M] or [M], True = given; what is not in `data` counts as not given.
          options: see `sampling.SamplerOptions`.
          num_samples: S, samples per row.

        Raises:
          SbmError: on data of a modality that the system does not have.
        """
        names = [modality.name for modality in self.modalities]
        for name in data:
            if name not in names:
                raise unknown("modality", name, names)
        observed = jnp.asarray(observed).reshape(-1, len(names)) & jnp.array([[name in data for name in names]])
        batch = len(next(iter(data.values()))) if data else len(observed)
        observed = jnp.broadcast_to(observed, (batch, len(names)))
        z_observed = self.encode(products, data) if data else jnp.zeros((batch, *self.valid.shape))
        context = Context(jnp.repeat(observed, num_samples, axis=0), jnp.asarray(self.valid))
        model = self.score_model
        score_fn = model.bind(products[self.stage_names[2]], bind_context(options, context))
        result = sample(score_fn, model.sde, key, jnp.repeat(z_observed, num_samples, axis=0), context, options)

        generated = self.decode(products, result.z)
        samples = {name: array.reshape(batch, num_samples, *array.shape[1:]) for name, array in generated.items()}
        for i, modality in enumerate(self.modalities):
            if modality.name in data:
                given = observed[:, i].reshape((batch,) + (1,) * (samples[modality.name].ndim - 1))
                samples[modality.name] = jnp.where(given, data[modality.name][:, None], samples[modality.name])
        latents = unpack(result.z.reshape(batch * num_samples, *self.valid.shape), self.modalities)
        return Generated(
            data=samples,
            latents={name: array.reshape(batch, num_samples, -1) for name, array in latents.items()},
            info={
                "network_evaluations": result.network_evaluations,
                "diverged": result.diverged.sum(),
            },
        )
