"""The definition of a method: builds the system of one row of a results table from its own options."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import System
from sbm_jax.types import Modality

if TYPE_CHECKING:  # only for annotations
    from sbm_jax.systems.codec_training import AutoencoderConfig
    from sbm_jax.systems.score_stage import ScoreConfig


@dataclasses.dataclass(frozen=True)
class Shared:
    """Settings shared by all methods of an experiment.

    Attributes:
      modalities: modalities that are modelled jointly, in mask order.
      autoencoder: options of stage I.
      score: options of stage II.
      sampler: sampler options of the experiment.
      seed: seed of every random draw; part of the settings of every stage.
      encoded: modalities of stage I, if there are more than those modelled jointly; otherwise ().
    """

    modalities: tuple[Modality, ...]
    autoencoder: "AutoencoderConfig"
    score: "ScoreConfig"
    sampler: SamplerOptions = SamplerOptions()
    seed: int = 0
    encoded: tuple[Modality, ...] = ()


@runtime_checkable
class NamesModalities(Protocol):
    """Options of a method that name modalities; a variation of an experiment may leave some of these out."""

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` if the options name a modality that is not in `names`, all modalities of the experiment."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A method. In `systems`, configs name this package's methods by name, others as ``"package.module:NAME"``.

    Attributes:
      name: row of the results table and `name` of the system.
      make: `(name, shared, **options) -> System`, with one keyword for each group of options.
      options: {group: dataclass}, the groups of ``config.methods`` that the method takes; every field must have a
        default. Methods may share a group. Options that name modalities should be `NamesModalities`.
    """

    name: str
    make: Callable[..., System]
    options: Mapping[str, type] = dataclasses.field(default_factory=dict)

    def system(self, shared: Shared, groups: Mapping[str, Any]) -> System:
        """Build the system.

        Args:
          shared: settings shared by all methods.
          groups: options by group; ignores those of other methods.
        """
        return self.make(self.name, shared, **{name: groups[name] for name in self.options})
