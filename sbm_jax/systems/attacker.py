"""What attacks: a supervised network whose gradient says how to change one modality so that another is misread.

It is trained for this alone, so no attacked system has its parameters: the attack is a black box.
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
from sbm_jax.systems.supervised import Predictor, SupervisedConfig
from sbm_jax.types import Array, Data, Dataset, Modality, Params, Stage, TrainingConfig


@checked_dataclass
class AttackerConfig:
    """Which modality is attacked, and what is to be misread.

    Attributes:
      source: the modality that is changed, numbers.
      target: the modality that is predicted from it, numbers.
      training: of the network, which is a `supervised.Predictor`.
    """

    source: str
    target: str
    training: TrainingConfig = TrainingConfig()


@dataclasses.dataclass(frozen=True)
class Attacker:
    """The network, and its attack.

    Attributes:
      modalities: those of the data.
      config: see `AttackerConfig`.
      encoder: sizes of the source's encoder, where its codec has none of its own.
      seed: the run's seed.
    """

    modalities: tuple[Modality, ...]
    config: AttackerConfig
    encoder: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    seed: int = 0

    def __post_init__(self):
        numbers = {modality.name: modality for modality in self.modalities if not modality.vocabulary_size}
        for field in ("source", "target"):
            if (name := getattr(self.config, field)) not in numbers:
                raise unknown(f"modality (config.attacker.{field}):", name, numbers)
        if self.config.source == self.config.target:
            raise SbmError(f"config.attacker.target is {self.config.target!r}, its source. Name another modality.")

    @property
    def predictor(self) -> Predictor:
        """The network."""
        by_name = {modality.name: modality for modality in self.modalities}
        source, target = by_name[self.config.source], by_name[self.config.target]
        return Predictor(source, target, SupervisedConfig(training=self.config.training), self.encoder)

    @property
    def stage_name(self) -> str:
        """The name of the training stage."""
        return f"attacker_{self.config.source}_to_{self.config.target}"

    def stage(self, dataset: Dataset) -> Stage:
        """Return the training stage."""
        return self.predictor.stage(self.stage_name, dataset, self.seed)

    def attack_fn(self, params: Params) -> Callable[[Data, np.ndarray], Data]:
        """Return the compiled `(float data {name: [B, *shape]}, strengths [B]) -> data` with the source attacked."""
        source, target = self.predictor.source, self.predictor.target

        @parallel.over_rows
        def attack(params: Params, rows: tuple[Data, Array]) -> Array:
            data, strengths = rows
            return fgsm(
                lambda x: self.predictor.loss(params, x, data[target.name]), data[source.name], strengths, source.bounds
            )

        return lambda data, strengths: {**data, source.name: np.asarray(attack(params, (data, strengths)))}


def fgsm(loss_fn: Callable[[Array], Array], x: Array, strengths: Array, bounds: tuple[float, ...] = ()) -> Array:
    """Return x + ε sign(∇_x loss), inside the bounds: the fast gradient sign method.

    Args:
      loss_fn: `x -> [B]`, the loss of each row.
      x: float [B, *shape], the data that are attacked.
      strengths: ε [B], in the units of the data; 0 changes nothing.
      bounds: (low, high) of the data; () for none.

    Reference: I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and Harnessing Adversarial Examples", 2015.
      https://arxiv.org/abs/1412.6572
    """
    gradient = jax.grad(lambda x: loss_fn(x).sum())(x)
    attacked = x + strengths.reshape(-1, *(1,) * (x.ndim - 1)) * jnp.sign(gradient)
    return jnp.clip(attacked, *bounds) if bounds else attacked
