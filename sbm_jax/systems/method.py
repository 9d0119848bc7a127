"""What a method is: how the systems of one row of a results table are made, and the options that it has of its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import System
from sbm_jax.types import Modality

if TYPE_CHECKING:  # they say themselves how they are made
    from sbm_jax.systems.codec_training import AutoencoderConfig
    from sbm_jax.systems.score_stage import ScoreConfig


@dataclasses.dataclass(frozen=True)
class Shared:
    """What the methods of an experiment have in common.

    Attributes:
      modalities: those that are modelled together, in the order of every mask.
      autoencoder: stage I.
      score: stage II.
      sampler: how the experiment samples.
      seed: of every random draw; part of the settings of every stage.
      encoded: the modalities of stage I, where they are more than those that are modelled together; else ().
    """

    modalities: tuple[Modality, ...]
    autoencoder: "AutoencoderConfig"
    score: "ScoreConfig"
    sampler: SamplerOptions = SamplerOptions()
    seed: int = 0
    encoded: tuple[Modality, ...] = ()


@runtime_checkable
class NamesModalities(Protocol):
    """Options of a method with names of modalities, some of which a variation may leave out."""

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` for a name that is not among those of all modalities of the experiment."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, which configs name in `systems`: one of this package by its name, another's ``"package.module:NAME"``.

    Attributes:
      name: the row of the results table; the `name` of the system.
      make: `(name, shared, **options) -> System`, the options by the names of their groups.
      options: {group: its dataclass}, the groups of ``config.methods`` that it is made from; all of their fields have
        defaults. Methods may share a group. Those with names of modalities should be `NamesModalities`.
    """

    name: str
    make: Callable[..., System]
    options: Mapping[str, type] = dataclasses.field(default_factory=dict)

    def system(self, shared: Shared, groups: Mapping[str, Any]) -> System:
        """Return the system.

        Args:
          shared: what it has in common with others.
          groups: the options by group; those of other methods are left out.
        """
        return self.make(self.name, shared, **{name: groups[name] for name in self.options})
