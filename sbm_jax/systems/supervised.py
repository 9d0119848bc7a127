"""Supervised networks: each predicts one modality from one other, as a reference for what can be known of it.

They answer what is asked given their source, and nothing else: where it is not given, what they return is not a number.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.distributions import LIKELIHOODS, sum_over_entries
from sbm_jax.errors import SbmError, unknown
from sbm_jax.losses.masked import masked_mean
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, FeedForward, make_codec
from sbm_jax.networks.codecs.base import FIRST_SCALE
from sbm_jax.networks.denoisers import DenoiserConfig, make_denoiser
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import Generated
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.observed import observed_rows, put_back
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Modality, Params, Stage, TrainingConfig

PICTURES = DenoiserConfig("unet", attention=())
"""The network whose output is a picture."""


@checked_dataclass
class SupervisedConfig:
    """What is predicted from what.

    Attributes:
      source: the modality that is given; "" for the first.
      targets: those that are predicted from it, where they are modelled; () for all others but ids.
      pictures: the network for targets that are pictures of the source's height and width; all others come from the
        encoder of the source's codec, whose features are projected.
      training: of each network.
    """

    source: str = ""
    targets: tuple[str, ...] = ()
    pictures: DenoiserConfig = PICTURES
    training: TrainingConfig = TrainingConfig()

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` for a modality that the experiment does not have; see `method.NamesModalities`."""
        for field, chosen in {"source": filter(None, [self.source]), "targets": self.targets}.items():
            for name in chosen:
                if name not in names:
                    raise unknown(f"modality (config.methods.supervised.{field}):", name, names)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A network that is told one modality and returns the expected value of another.

    Attributes:
      source: what it is told.
      target: what it returns.
      config: see `SupervisedConfig`.
      encoder: sizes of the source's encoder, where its codec has none of its own.
    """

    source: Modality
    target: Modality
    config: SupervisedConfig
    encoder: AutoencoderNetworkConfig = AutoencoderNetworkConfig()

    @property
    def is_picture(self) -> bool:
        """Whether the target is a picture of the source's height and width."""
        shapes = self.source.shape, self.target.shape
        return all(len(shape) == 3 for shape in shapes) and shapes[0][:2] == shapes[1][:2]

    @functools.cached_property
    def _codec(self) -> FeedForward:
        """The source's codec, with as many latents as the target has entries."""
        codec = make_codec(self.source.with_latents(math.prod(self.target.shape)), self.encoder)
        if not isinstance(codec, FeedForward):
            raise SbmError(
                f"method 'supervised': modality {self.source.name!r} has the codec {self.source.codec.name!r}, whose "
                "encoder predicts nothing else. Give it a feed-forward one, such as 'residual_conv', 'patch' or 'mlp'."
            )
        return codec

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""
        x = jnp.zeros((1, *self.source.shape), self.source.dtype)
        if self.is_picture:
            return make_denoiser(self.config.pictures).init(key, *self._inputs(x))["params"]
        return self._codec.init(key)["encoder"]

    def _inputs(self, x: Array) -> tuple[Array, Array, Array, None]:
        """Return what a denoiser is told that is to denoise nothing: a blank picture, a time, and the source."""
        return jnp.zeros((len(x), *self.target.shape)), jnp.ones(len(x)), x, None

    def output(self, params: Params, x: Array) -> Array:
        """Return the raw output of the target's likelihood [B, *shape'] for the source [B, *shape]."""
        if self.is_picture:
            return make_denoiser(self.config.pictures).apply({"params": params}, *self._inputs(x))
        return self._codec.encode({"encoder": params}, x)[0].reshape(-1, *self.target.shape)

    def predict(self, params: Params, x: Array) -> Array:
        """Return the expected target [B, *shape'], inside its bounds."""
        found = LIKELIHOODS[self.target.likelihood].mean(self.output(params, x))
        return jnp.clip(found, *self.target.bounds) if self.target.bounds else found

    def loss(self, params: Params, x: Array, y: Array) -> Array:
        """Return -log p(y | x) [B] of source and target, in nats: the cross-entropy, or half the squared error.

        The scale of a likelihood that has one is the modality's; where that is to be learned, it is √½ here.
        """
        scale = FIRST_SCALE if self.target.scale is None else self.target.scale
        return -sum_over_entries(LIKELIHOODS[self.target.likelihood].log_prob(y, self.output(params, x), scale))

    def stage(self, name: str, dataset: Dataset, seed: int) -> Stage:
        """Return the stage that trains it, on the rows that have both."""
        names = [self.source.name, self.target.name]
        return Stage(
            name=name,
            settings={
                "seed": seed,
                "data": dataset.settings,
                "source": _settings(self.source),
                "target": _settings(self.target),
                "encoder": plain(self.encoder),
                "pictures": plain(self.config.pictures),
                "training": plain(self.config.training),
            },
            init=lambda key, upstream: self.init(key),
            loss=self._loss,
            rows=lambda upstream: dataset.train.rows(names),
            validation_rows=lambda upstream: dataset.validation.rows(names),
            training=self.config.training,
        )

    def _loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any]
    ) -> tuple[Array, Metrics]:
        del upstream, key
        data, present = in_units(batch["data"]), batch.get("present")
        both = None if present is None else present.all(axis=1)
        losses = self.loss(params, data[self.source.name], data[self.target.name])
        return masked_mean(losses, both) / math.prod(self.target.shape), {}


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The networks of one source.

    Attributes:
      name: the row of the results table.
      modalities: M modalities.
      config: see `SupervisedConfig`.
      encoder: see `Predictor`.
      seed: the run's seed.
    """

    name: str
    modalities: tuple[Modality, ...]
    config: SupervisedConfig
    encoder: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    seed: int = 0

    @property
    def source(self) -> Modality:
        """What is given."""
        by_name = {modality.name: modality for modality in self.modalities}
        name = self.config.source or self.modalities[0].name
        if name not in by_name:
            raise unknown("modality (config.methods.supervised.source):", name, by_name)
        return by_name[name]

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The networks, by the names of their stages."""
        others = {m.name: m for m in self.modalities if m.name != self.source.name and not m.vocabulary_size}
        wanted = [m.name for m in self.modalities if m.name in self.config.targets] if self.config.targets else others
        for name in wanted:
            if name not in others:
                raise unknown("target (config.methods.supervised.targets):", name, others)
        return {
            f"supervised_{self.source.name}_to_{name}": Predictor(self.source, others[name], self.config, self.encoder)
            for name in wanted
        }

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages."""
        return tuple(self.predictors)

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for what can not work, by tracing shapes: nothing is computed."""
        del options
        if not self.predictors:
            raise SbmError(
                f"method {self.name!r} predicts other modalities than ids from {self.source.name!r}, and there is "
                "none. Leave it out, or add one."
            )
        for predictor in self.predictors.values():

            def attempt(key: Key, predictor: Predictor = predictor) -> Array:
                x = jnp.zeros((2, *predictor.source.shape), predictor.source.dtype)
                return predictor.predict(predictor.init(key), x)

            jax.eval_shape(attempt, jax.random.key(0))

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return one stage for each network."""
        return [predictor.stage(name, dataset, self.seed) for name, predictor in self.predictors.items()]

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
        """Return predictions given the source, NaN without it, and of what is not predicted; all samples are equal.

        Raises:
          SbmError: on data of an unknown modality, a wrong shape, or a strength, for nothing is guided.
        """
        del key, options
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        observed = observed_rows(data, observed, self.modalities)
        column = [modality.name for modality in self.modalities].index(self.source.name)
        found = self._predicted(products, data, len(observed), observed[:, column])
        samples = jax.tree.map(lambda array: jnp.repeat(array, num_samples, axis=0), found)
        # Nothing is lost: what it can not tell was never to be had.
        info = {"network_evaluations": jnp.ones(()), "diverged": jnp.zeros((), jnp.int32)}
        return Generated(put_back(samples, data, observed, self.modalities), None, info)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return what is predicted of float data from the source; NaN of what is not predicted, such as the source."""
        rows = len(data[self.source.name])
        return self._predicted(products, data, rows, jnp.ones(rows, bool))

    def _predicted(self, products: Mapping[str, Params], data: Data, rows: int, known: Array) -> dict[str, Array]:
        """Return {modality: [B, *shape]}; NaN, or the id -1, where it is not predicted or the source is not known."""
        found = {
            modality.name: jnp.full(
                (rows, *modality.shape), -1 if modality.vocabulary_size else jnp.nan, modality.dtype
            )
            for modality in self.modalities
        }
        if self.source.name in data:
            for name, predictor in self.predictors.items():
                y = predictor.predict(products[name], data[self.source.name])
                found[predictor.target.name] = jnp.where(known.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.nan)
        return found


def _settings(modality: Modality) -> dict[str, Any]:
    """Return what training depends on of a modality."""
    codec = {"name": modality.codec.name, "network": plain(modality.codec.network)}
    own = {name: getattr(modality, name) for name in ("name", "likelihood", "scale", "vocabulary_size")}
    return {**own, "shape": list(modality.shape), "codec": codec}


def _make(name: str, shared: Shared, supervised: SupervisedConfig) -> Supervised:
    return Supervised(name, shared.modalities, supervised, shared.autoencoder.network, shared.seed)


METHODS = (Method("supervised", _make, {"supervised": SupervisedConfig}),)
