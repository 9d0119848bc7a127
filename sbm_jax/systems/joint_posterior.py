"""MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+: variational autoencoders with one latent for all modalities.

They use the same encoders, decoders and data as the other systems. They differ in how they join experts into a
posterior, and in the bound; see `joinings`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import changed, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError
from sbm_jax.losses.bounds import BoundTerms, Decoding
from sbm_jax.networks.codecs import Bounds, Codecs, Objective, check_codec, make_codec, training_settings
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import Generated
from sbm_jax.systems.joining import Encoded, Joining
from sbm_jax.systems.joinings import JOININGS
from sbm_jax.systems.joint_latents import Experts, LatentLaws, Latents
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.observed import decode, numbers_of, observed_rows, put_back
from sbm_jax.systems.pretrained_start import check_start, start_stage, started
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Modality, Params, Split, Stage, TrainingConfig


@dataclasses.dataclass(frozen=True)
class JointPosterior:
    """A variational autoencoder with one latent for all modalities.

    Attributes:
      name: row of the results table.
      modalities: M modalities, in mask order.
      config: options shared by these systems.
      joining: how experts are joined, and the bound.
      seed: the run's seed, part of the stage's fingerprint.
      batched: compute modalities with equal settings in one `vmap` (see `PerModality`); None for True except on CPU.
      num_free: see `with_free`.
    """

    name: str
    modalities: tuple[Modality, ...]
    config: JointPosteriorConfig
    joining: Joining
    seed: int = 0
    batched: bool | None = None
    num_free: int | None = None

    @property
    def method(self) -> str:
        """The method's name without the suffix of a prior, which also names its training stage."""
        return self.joining.name

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes D of the joint latent and D' of each modality's private one."""
        return self.joining.latent_size or self.config.latent_size, self.joining.private_size

    @property
    def decoded_modalities(self) -> tuple[Modality, ...]:
        """The modalities with the latent size, likelihood and codec that this method gives them."""
        size = sum(self.sizes)
        return tuple(self.joining.decoded(modality.with_latents(size)) for modality in self.modalities)

    @property
    def codecs(self) -> Codecs:
        """The encoders and decoders of all modalities."""
        batched = jax.default_backend() != "cpu" if self.batched is None else self.batched
        return Codecs(self.decoded_modalities, self.config.network, batched)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The name of the one stage."""
        return (self.method,)

    @property
    def training(self) -> TrainingConfig:
        """Training options of the stage, with the method's changes."""
        where = f"config.methods.{self.method}.training"
        return changed(self.config.training, self.joining.training, where)

    @property
    def laws(self) -> LatentLaws:
        """The distributions of the latents."""
        return LatentLaws(self.joining, self.sizes, len(self.modalities))

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for settings that cannot work; traces shapes without computing anything."""
        del options
        self.joining.check(self.modalities)
        for modality in self.decoded_modalities:
            check_codec(make_codec(modality, self.config.network))
        check_start(self.codecs, self.training.optimizer)
        if self.joining.weights_samples:
            for modality in self.decoded_modalities:
                if isinstance(make_codec(modality, self.config.network), Bounds):
                    raise SbmError(
                        f"system {self.name!r} weights samples by their likelihoods, but the codec "
                        f"{modality.codec.name!r} of modality {modality.name!r} only bounds them. Choose another "
                        "method (mvae, mopoe, diff_mvae, mvtcae), or another codec."
                    )
        params = jax.eval_shape(self._init, jax.random.key(0))
        data = {modality.name: jnp.zeros((1, *modality.shape), modality.dtype) for modality in self.modalities}
        jax.eval_shape(lambda params: self.terms(params, jax.random.key(0), data), params)

    # MARK: Training

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stage that trains all parameters, after that of pretrained weights, if any."""
        apart = ("training", *self.joining.apart_from_training)
        own = {name: v for name, v in plain(self.joining).items() if name not in apart}
        config, start = self.config, start_stage(self.method, self.codecs)
        stage = Stage(
            name=self.method,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": [training_settings(modality) for modality in self.decoded_modalities],
                "network": plain(config.network),
                "training": plain(self.training),
                "latent_size": self.sizes[0],
                "settings": own,
            },
            init=self._start,
            requires=() if start is None else (start.name,),
            loss=self._loss,
            rows=lambda upstream: self.rows(dataset.train),
            validation_rows=lambda upstream: self.rows(dataset.validation),
            validation_loss=functools.partial(self._loss, objective=Objective.VALIDATION),
            training=self.training,
        )
        return [stage] if start is None else [start, stage]

    def _start(self, key: Key, upstream: Mapping[str, Params]) -> Params:
        """Return fresh parameters, with pretrained weights in place of their counterparts."""
        params = self._init(key)
        for read in upstream.values():
            params = {**params, "codecs": started(params["codecs"], read)}
        return params

    def rows(self, split: Split) -> Any:
        """Return the rows that the stage trains on; see `types.Split.rows`."""
        return split.rows([modality.name for modality in self.modalities])

    def _init(self, key: Key) -> Params:
        return {"codecs": self.codecs.init(key), **self.laws.init()}

    def _loss(
        self,
        params: Params,
        upstream: Mapping[str, Params],
        key: Key,
        batch: Mapping[str, Any],
        objective: Objective = Objective.TRAINING,
    ) -> tuple[Array, Metrics]:
        del upstream
        terms = self.terms(params, key, in_units(batch["data"]), batch.get("present"), objective)
        if isinstance(terms, BoundTerms):
            parts = {"reconstruction": terms.reconstruction.mean(), "regulariser": terms.regulariser.mean()}
            return terms.loss.mean(), parts
        return terms.mean(), {}

    def terms(
        self,
        params: Params,
        key: Key,
        data: Data,
        present: Array | None = None,
        objective: Objective = Objective.TRAINING,
    ) -> BoundTerms | Array:
        """Return the per-row terms of the objective, or the per-row loss [B] of an importance-weighted one.

        Args:
          params: parameters of the stage.
          key: typed key for the noise and the subsets.
          data: {modality: float [B, *shape]}; any finite value where a row lacks a modality.
          present: bool [B, M]; None if nothing is missing.
          objective: objective of codecs that are `Bounds`.
        """
        decoding = self._decoding(params, key, data, objective)
        return self.joining.terms(key, Encoded(self._experts(params, data), decoding, params, present))

    def _experts(self, params: Params, data: Data) -> Experts:
        """Return the experts of a batch; 0 for modalities that are not in `data`."""
        encoded = self.codecs.encode(params["codecs"], data)
        batch = len(next(iter(data.values())))
        nothing = (jnp.zeros((batch, sum(self.sizes))),) * 2
        found = [encoded.get(modality.name, nothing) for modality in self.modalities]
        return jnp.stack([mean for mean, _ in found], axis=1), jnp.stack([raw for _, raw in found], axis=1)

    def _decoding(self, params: Params, key: Key, data: Data, objective: Objective = Objective.TRAINING) -> Decoding:
        def log_prob(latents: Mapping[str, Array], part: Array | int) -> dict[str, Array]:
            return self.codecs.log_prob(params["codecs"], jax.random.fold_in(key, part), data, latents, objective)

        is_bound = objective is Objective.BOUND
        factors = (1.0,) * len(self.modalities) if is_bound else self.joining.factors(self.modalities)
        return Decoding(self.modalities, log_prob, factors)

    # MARK: Use

    def with_free(self, number: int) -> "JointPosterior":
        """Return the system for rows with at most `number` unobserved modalities; see `system.SparesObserved`."""
        return dataclasses.replace(self, num_free=number)

    def generate(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: SamplerOptions,
        num_samples: int = 1,
        *,
        strength: Array | float | None = None,
    ) -> Generated:
        """Generate unobserved modalities from the posterior given the observed ones; see `system.System.generate`.

        Raises:
          SbmError: on an unknown modality, a wrong shape, or a strength, because there is no guidance.
        """
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        observed = observed_rows(data, observed, self.modalities)
        prior_key, key = jax.random.split(key)
        params, evaluations, latents = products[self.method], jnp.zeros(()), None
        if not data or self.num_free in (None, len(self.modalities)):

            def from_prior() -> tuple[Latents, Array]:
                found, cost = self._sample_prior(products, prior_key, len(observed), num_samples, options)
                return found, jnp.asarray(cost, jnp.float32)

            def nothing() -> tuple[Latents, Array]:
                return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(from_prior))

            # Skip the prior, which may be a score model, if every row has an observed modality.
            latents, evaluations = jax.lax.cond(observed.any(axis=1).all(), nothing, from_prior)
        if data:
            given = self.laws.sample_given(params, key, self._experts(params, data), observed, num_samples)
            if latents is not None:
                any_given = observed.any(axis=1)[:, None, None]
                given = Latents(
                    jnp.where(any_given, given.joint, latents.joint),
                    jnp.where(any_given[..., None], given.private, latents.private),
                )
            latents = given
        inputs = {name: z.reshape(-1, z.shape[-1]) for name, z in self._decoder_inputs(latents).items()}
        samples, lost, costs = decode(self.codecs, params["codecs"], key, inputs, observed, self.modalities)
        lost |= ~jnp.stack([jnp.isfinite(z).all(axis=-1) for z in inputs.values()]).all(axis=0)
        return Generated(
            data=put_back(samples, data, observed, self.modalities),
            latents=None,
            info={"network_evaluations": evaluations, **costs, "diverged": lost.sum()},
        )

    def _decoder_inputs(self, latents: Latents) -> dict[str, Array]:
        """Return the latents that each modality is decoded from, {name: [B, S, D + D']}."""
        private = jnp.moveaxis(latents.private, 2, 0)
        return {
            modality.name: jnp.concatenate([latents.joint, own], axis=-1)
            for modality, own in zip(self.modalities, private, strict=True)
        }

    def _sample_prior(
        self, products: Mapping[str, Params], key: Key, batch: int, num_samples: int, options: SamplerOptions
    ) -> tuple[Latents, Array]:
        """Sample latents from the prior; also return the network evaluations per sample."""
        del options
        return self.laws.sample_prior(products[self.method], key, batch, num_samples), jnp.zeros(())

    def posterior_parts(
        self, params: Params, key: Key, data: Data, present: Array | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Return the posterior given float data, or one random component per row if it is a mixture.

        Args:
          params: parameters of the stage.
          key: chooses the component.
          data: {modality: float [B, *shape]}.
          present: bool [B, M]; None if nothing is missing. Private latents of missing modalities have mean 0 and the
            scale of raw zeros.

        Returns:
          Location and scale of the joint latent [B, D], and of the private ones [M, B, D'].
        """
        experts = self._experts(params, data)
        present = jnp.ones(experts[0].shape[:2], bool) if present is None else present
        return self.laws.parts(key, experts, present)

    tells_latents = False

    @property
    def decoder_name(self) -> str:
        """Name of what reconstructs data: the method."""
        return self.method

    @property
    def decoder_stages(self) -> tuple[str, ...]:
        """The name of the one stage."""
        return (self.method,)

    @property
    def decoder_settings(self) -> dict[str, Any]:
        """Sampling settings of the codecs that decode step by step."""
        return self.codecs.drawing

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], None]:
        """Decode samples of the posterior given all present modalities; see `system.Reconstructs`."""
        params = products[self.method]
        mean, raw = self.laws.own(self._experts(params, data), present)
        noise_key, key = jax.random.split(key)
        noise = self.joining.noise(noise_key, mean.shape)
        z = self.joining.family.sample(mean, self.joining.family.scale(raw), noise)
        latents = {modality.name: z[:, i] for i, modality in enumerate(self.modalities)}
        return self.codecs.generate(params["codecs"], key, latents), None

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Decode the posterior mean given all float data; under a mixture, the mean of each modality's own expert."""
        params = products[self.method]
        mean, _ = self.laws.own(self._experts(params, data))
        latents = {modality.name: mean[:, i] for i, modality in enumerate(self.modalities)}
        return self.codecs.generate(params["codecs"], jax.random.key(0), latents, row_numbers=numbers_of(data))

    @property
    def has_likelihood(self) -> bool:
        """Whether log weights are meaningful: guided codecs change the distribution."""
        return not self.codecs.are_guided

    @property
    def has_costly_density(self) -> bool:
        """Whether log weights are only estimates of bounds, as with diffusion decoders; see `system.HasLikelihood`."""
        codecs = (make_codec(modality, self.config.network) for modality in self.decoded_modalities)
        return any(isinstance(codec, Bounds) for codec in codecs)

    @property
    def _bound_subsets(self) -> np.ndarray:
        """The subsets, bool [S, M], whose products the posterior of the bound mixes."""
        return self.joining.subsets(len(self.modalities))

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return log p(x, z_s) - log q(z_s | x) [B, S] for posterior samples given all modalities, in nats.

        The mean over S is the ELBO, the log-mean-exp the importance-weighted bound, which rises with S to log p(x).
        """
        params = products[self.method]
        experts = self._experts(params, data)
        *keys, prior_key = jax.random.split(key, 4)
        subsets = self._bound_subsets
        latents = self.laws.sample_whole(*keys, experts, num_samples, mixes=len(subsets) > 1)
        inputs = {name: jnp.moveaxis(z, 1, 0) for name, z in self._decoder_inputs(latents).items()}
        likelihood = self._decoding(params, key, data, Objective.BOUND).log_likelihood(inputs).sum(axis=-1)
        log_p = self._log_prior(products, prior_key, latents)
        return likelihood.T + log_p - self.laws.log_posterior(experts, latents, subsets)

    def _log_prior(self, products: Mapping[str, Params], key: Key, latents: Latents) -> Array:
        """Return the log density [B, S] of latents under the prior used for generation, in nats."""
        del key
        return self.laws.log_prior(products[self.method], latents)


def _make(name: str, shared: Shared, joint_posterior: JointPosteriorConfig, **own: Joining) -> JointPosterior:
    return JointPosterior(name, shared.modalities, joint_posterior, own[name], shared.seed)


METHODS = tuple(Method(cls.name, _make, {"joint_posterior": JointPosteriorConfig, cls.name: cls}) for cls in JOININGS)
