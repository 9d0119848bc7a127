"""Readers: supervised networks that predict one modality from another, to evaluate samples and to attack inputs.

They are trained separately and share no parameters with any system, so they judge all systems alike, and an attack
by a reader's gradient is a black-box attack on the system.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax import parallel
from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.denoisers import DenoiserConfig
from sbm_jax.systems.supervised import PICTURES, Predictor, SupervisedConfig
from sbm_jax.types import Array, Dataset, Modality, Params, Stage, TrainingConfig


@checked_dataclass
class ReaderConfig:
    """Source, target and network of a reader.

    Attributes:
      source: modality of numbers that is read.
      target: modality of numbers that is predicted from it.
      pictures: see `supervised.SupervisedConfig`.
      training: training of the network, a `supervised.Predictor`.
    """

    source: str
    target: str
    pictures: DenoiserConfig = PICTURES
    training: TrainingConfig = TrainingConfig()


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader: its network, predictions and attack.

    Attributes:
      modalities: modalities of the data.
      config: see `ReaderConfig`.
      encoder: sizes of the source's encoder, unless its codec sets its own.
      seed: the run's seed.

    Raises:
      SbmError: if source or target is unknown or holds ids, or both are the same.
    """

    modalities: tuple[Modality, ...]
    config: ReaderConfig
    encoder: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    seed: int = 0

    def __post_init__(self):
        numbers = {modality.name: modality for modality in self.modalities if not modality.vocabulary_size}
        for field in ("source", "target"):
            if (name := getattr(self.config, field)) not in numbers:
                raise unknown(f"{field} of config.readers:", name, numbers)
        if self.config.source == self.config.target:
            raise SbmError(
                f"a reader (config.readers) has {self.config.target!r} as source and target. Name another modality."
            )

    @property
    def name(self) -> tuple[str, str]:
        """The names of the source and the target."""
        return self.config.source, self.config.target

    @property
    def predictor(self) -> Predictor:
        """The network."""
        by_name = {modality.name: modality for modality in self.modalities}
        config = SupervisedConfig(pictures=self.config.pictures, training=self.config.training)
        return Predictor(by_name[self.config.source], by_name[self.config.target], config, self.encoder)

    @property
    def stage_name(self) -> str:
        """The name of the training stage."""
        return f"reader_{self.config.source}_to_{self.config.target}"

    def stage(self, dataset: Dataset) -> Stage:
        """Return the training stage."""
        return self.predictor.stage(self.stage_name, dataset, self.seed)

    def read_fn(self, params: Params) -> Callable[[np.ndarray], np.ndarray]:
        """Return the compiled `float sources [B, *shape] -> expected targets [B, *shape']`."""

        @parallel.over_rows
        def read(params: Params, rows: Array) -> Array:
            return self.predictor.predict(params, rows)

        return lambda sources: np.asarray(read(params, sources))

    def attack_fn(self, params: Params) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        """Return the compiled `(sources [B, *shape], targets [B, *shape'], strengths [B]) -> attacked sources`."""

        @parallel.over_rows
        def attack(params: Params, rows: tuple[Array, Array, Array]) -> Array:
            sources, targets, strengths = rows
            bounds = self.predictor.source.bounds
            return fgsm(lambda x: self.predictor.loss(params, x, targets), sources, strengths, bounds)

        return lambda *rows: np.asarray(attack(params, rows))


def fgsm(loss_fn: Callable[[Array], Array], x: Array, strengths: Array, bounds: tuple[float, ...] = ()) -> Array:
    """Return x + ε sign(∇_x loss), clipped to the bounds: the fast gradient sign method.

    Args:
      loss_fn: `x -> [B]`, the loss of each row.
      x: float [B, *shape], the data to attack.
      strengths: ε [B], in the units of the data; 0 changes nothing.
      bounds: (low, high) of the data; () for none.

    Reference: I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and Harnessing Adversarial Examples", 2015.
      https://arxiv.org/abs/1412.6572
    """
    gradient = jax.grad(lambda x: loss_fn(x).sum())(x)
    attacked = x + strengths.reshape(-1, *(1,) * (x.ndim - 1)) * jnp.sign(gradient)
    return jnp.clip(attacked, *bounds) if bounds else attacked
