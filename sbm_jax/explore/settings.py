"""The settings on the page, and the link that restores them."""

import dataclasses
import math
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from sbm_jax.errors import SbmError, require

MOST_STEPS, MOST_SAMPLES = 1000, 16
"""Limits per call: the page is for looking at a few samples."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings on the page.

    Attributes:
      system: one of the trained systems.
      row: number of a held-out row; None to use only the user's own files.
      given: names of the observed modalities.
      targets: names of the modalities to generate.
      solver: solver of the sampler.
      steps: number of solver steps.
      strength: guidance strength; None for the config's.
      samples: number of samples.
      seed: seed of the samples.
    """

    system: str
    row: int | None
    given: tuple[str, ...]
    targets: tuple[str, ...]
    solver: str
    steps: int
    strength: float | None
    samples: int
    seed: int

    @property
    def query(self) -> str:
        """The query string of a link that restores the settings, with its question mark."""
        values = {name: _written(value) for name, value in dataclasses.asdict(self).items()}
        return "?" + urllib.parse.urlencode(values)


@dataclasses.dataclass(frozen=True)
class Choices:
    """The available choices.

    Attributes:
      systems: names of the trained systems.
      modalities: names of the modalities.
      solvers: names of the solvers.
      num_rows: number of held-out rows.
    """

    systems: tuple[str, ...]
    modalities: tuple[str, ...]
    solvers: tuple[str, ...]
    num_rows: int

    def check(self, settings: Settings) -> None:
        """Raise `SbmError` for settings that cannot be chosen; they need not come from the page."""
        one_of("system", settings.system, self.systems)
        one_of("solver", settings.solver, self.solvers)
        for name in (*settings.given, *settings.targets):
            one_of("modality", name, self.modalities)
        within("steps", settings.steps, 1, MOST_STEPS)
        within("samples", settings.samples, 1, MOST_SAMPLES)
        within("seed", settings.seed, -(2**63), 2**63 - 1)
        if settings.strength is not None:
            require(0 <= settings.strength < math.inf, "strength", settings.strength, "0 or more")
        if settings.row is not None:
            within("row", settings.row, 0, self.num_rows - 1)


def one_of(what: str, name: str, known: tuple[str, ...]) -> str:
    """Return a known name, or raise `SbmError`."""
    if name not in known:
        raise SbmError(f"{what} is {name!r:.60}; expected one of {', '.join(known)}.")
    return name


def within(what: str, number: int, least: int, most: int) -> int:
    """Return an integer within bounds, or raise `SbmError`."""
    if not least <= number <= most:
        raise SbmError(f"{what} is {number!r:.60}; expected {least} to {most}.")
    return number


def restored(query: Mapping[str, str], defaults: Settings, choices: Choices) -> tuple[Settings, list[str]]:
    """Return the settings of a link, with defaults for invalid or missing ones, and messages on what is invalid.

    Args:
      query: the parameters of the link, which may come from anybody.
      defaults: the settings of a page without a link.
      choices: the available choices.
    """
    readers: dict[str, Callable[[str], Any]] = {
        "row": lambda text: int(text) if text else None,
        "given": _names,
        "targets": _names,
        "steps": int,
        "strength": lambda text: float(text) if text else None,
        "samples": int,
        "seed": int,
    }
    found, wrong = defaults, []
    for name in (field.name for field in dataclasses.fields(Settings)):
        if name not in query:
            continue
        try:
            settings = dataclasses.replace(found, **{name: readers.get(name, str)(query[name])})
            choices.check(settings)
            found = settings
        except ValueError:
            wrong.append(f"{name} is {query[name]!r:.60}; expected a number.")
        except SbmError as error:
            wrong.append(str(error))
    return found, wrong


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _written(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
