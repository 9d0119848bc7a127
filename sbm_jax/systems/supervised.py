"""Supervised networks: each predicts one modality from another, as a reference for how predictable it is.

They only predict given their source; if it is not observed, they return NaN.
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
"""Default network for targets that are images."""


@checked_dataclass
class SupervisedConfig:
    """Source, targets and networks of the supervised method.

    Attributes:
      source: modality to predict from; "" for the first.
      targets: modalities to predict, if they are modelled; () for all others except ids.
      pictures: network for targets that are images of the source's height and width; other targets are a projection of
        the features of the source codec's encoder.
      training: training of each network.
    """

    source: str = ""
    targets: tuple[str, ...] = ()
    pictures: DenoiserConfig = PICTURES
    training: TrainingConfig = TrainingConfig()

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` for a modality that the experiment lacks; see `method.NamesModalities`."""
        for field, chosen in {"source": filter(None, [self.source]), "targets": self.targets}.items():
            for name in chosen:
                if name not in names:
                    raise unknown(f"modality (config.methods.supervised.{field}):", name, names)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A network that predicts the expected value of one modality from another.

    Attributes:
      source: input modality.
      target: predicted modality.
      config: see `SupervisedConfig`.
      encoder: sizes of the source's encoder, unless its codec sets its own.
    """

    source: Modality
    target: Modality
    config: SupervisedConfig
    encoder: AutoencoderNetworkConfig = AutoencoderNetworkConfig()

    @property
    def is_picture(self) -> bool:
        """Whether source and target are images of the same height and width."""
        shapes = self.source.shape, self.target.shape
        return all(len(shape) == 3 for shape in shapes) and shapes[0][:2] == shapes[1][:2]

    @functools.cached_property
    def _codec(self) -> FeedForward:
        """The source's codec, with as many latents as the target has entries."""
        codec = make_codec(self.source.with_latents(math.prod(self.target.shape)), self.encoder)
        if not isinstance(codec, FeedForward):
            raise SbmError(
                f"method 'supervised': modality {self.source.name!r} has the codec {self.source.codec.name!r}, whose "
                "encoder cannot predict others. Choose a feed-forward one, such as 'residual_conv', 'patch' or 'mlp'."
            )
        return codec

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""
        x = jnp.zeros((1, *self.source.shape), self.source.dtype)
        if self.is_picture:
            return make_denoiser(self.config.pictures).init(key, *self._inputs(x))["params"]
        return self._codec.init(key)["encoder"]

    def _inputs(self, x: Array) -> tuple[Array, Array, Array, None]:
        """Return the inputs that turn a denoiser into a predictor: a blank image, a constant time and the source."""
        return jnp.zeros((len(x), *self.target.shape)), jnp.ones(len(x)), x, None

    def output(self, params: Params, x: Array) -> Array:
        """Return the raw parameters [B, *shape'] of the target's likelihood for the source [B, *shape]."""
        if self.is_picture:
            return make_denoiser(self.config.pictures).apply({"params": params}, *self._inputs(x))
        return self._codec.encode({"encoder": params}, x)[0].reshape(-1, *self.target.shape)

    def predict(self, params: Params, x: Array) -> Array:
        """Return the expected target [B, *shape'], clipped to its bounds."""
        found = LIKELIHOODS[self.target.likelihood].mean(self.output(params, x))
        return jnp.clip(found, *self.target.bounds) if self.target.bounds else found

    def loss(self, params: Params, x: Array, y: Array) -> Array:
        """Return -log p(y | x) [B] for source x and target y, in nats: the cross-entropy or a squared error.

        A likelihood with a scale uses that of the modality; a scale that is to be learned is fixed at √½ here.
        """
        scale = FIRST_SCALE if self.target.scale is None else self.target.scale
        return -sum_over_entries(LIKELIHOODS[self.target.likelihood].log_prob(y, self.output(params, x), scale))

    def stage(self, name: str, dataset: Dataset, seed: int) -> Stage:
        """Return the stage that trains the network, on the rows that have both modalities."""
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
    """All supervised networks with the same source.

    Attributes:
      name: row of the results table.
      modalities: M modalities, in mask order.
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
        """The modality to predict from."""
        by_name = {modality.name: modality for modality in self.modalities}
        name = self.config.source or self.modalities[0].name
        if name not in by_name:
            raise unknown("modality (config.methods.supervised.source):", name, by_name)
        return by_name[name]

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The networks by stage name."""
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
        """Raise `SbmError` for settings that cannot work; traces shapes without computing anything."""
        del options
        if not self.predictors:
            raise SbmError(
                f"method {self.name!r} predicts modalities other than ids from {self.source.name!r}, but there is "
                "none. Leave the method out, or add one."
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
        """Return the prediction as every sample; NaN for rows without the source and for modalities not predicted.

        Raises:
          SbmError: on an unknown modality, a wrong shape, or a strength, because there is no guidance.
        """
        del key, options
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        observed = observed_rows(data, observed, self.modalities)
        column = [modality.name for modality in self.modalities].index(self.source.name)
        found = self._predicted(products, data, len(observed), observed[:, column])
        samples = jax.tree.map(lambda array: jnp.repeat(array, num_samples, axis=0), found)
        # NaN marks what cannot be predicted, so no row has diverged.
        info = {"network_evaluations": jnp.ones(()), "diverged": jnp.zeros((), jnp.int32)}
        return Generated(put_back(samples, data, observed, self.modalities), None, info)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Predict all targets from the source in float data; NaN for the source and other modalities not predicted."""
        rows = len(data[self.source.name])
        return self._predicted(products, data, rows, jnp.ones(rows, bool))

    def _predicted(self, products: Mapping[str, Params], data: Data, rows: int, known: Array) -> dict[str, Array]:
        """Return {modality: [B, *shape]}; NaN, or the id -1, if it is not predicted or the source is not observed."""
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
    """Return the settings of a modality that training depends on."""
    codec = {"name": modality.codec.name, "network": plain(modality.codec.network)}
    own = {name: getattr(modality, name) for name in ("name", "likelihood", "scale", "vocabulary_size")}
    return {**own, "shape": list(modality.shape), "codec": codec}


def _make(name: str, shared: Shared, supervised: SupervisedConfig) -> Supervised:
    return Supervised(name, shared.modalities, supervised, shared.autoencoder.network, shared.seed)


METHODS = (Method("supervised", _make, {"supervised": SupervisedConfig}),)
