"""A trained work directory as the explorer uses it: its held-out rows, its systems and their samples."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sbm_jax import data
from sbm_jax.commands import load_quickly, sampler_options
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import read_config
from sbm_jax.explore.settings import Choices, Settings
from sbm_jax.sampling import SOLVERS
from sbm_jax.system import Generated
from sbm_jax.systems.methods import find_method
from sbm_jax.trained import TrainedSystem
from sbm_jax.types import Modality, Split

MOST_GIVEN_AT_FIRST = 1
"""The number of modalities that are ticked as given when the page opens."""


class Drawn(NamedTuple):
    """Generated samples of one row.

    Attributes:
      given: {modality: row}, in the form of the training data.
      samples: {modality: [S, ...]}, in the form of the training data.
      info: `info` of `system.Generated`, as integers.
      seconds: time taken.
      compiled: whether that includes compiling a program.
    """

    given: dict[str, Any]
    samples: dict[str, np.ndarray]
    info: dict[str, int]
    seconds: float
    compiled: bool


class Work:
    """A work directory whose training is complete.

    Attributes:
      name: name of the experiment.
      modalities: modalities that can be given or generated.
      lacks_rows: why there are no held-out rows; "" if there are.
      choices: the available choices.
      defaults: the initial settings.
    """

    def __init__(self, workdir: Path):
        """Read the config and the held-out rows, and load the first system.

        Raises:
          SbmError: if there is no finished run.
        """
        config = read_config(workdir)
        self.name, self._workdir = config.name, workdir
        self.modalities: tuple[Modality, ...] = config.joint_modalities
        self._lock, self._models = threading.Lock(), {}
        systems = tuple(find_method(name).name for name in config.systems)
        self._model(systems[0])
        self._rows: Split | None = None
        self.lacks_rows = ""
        names = tuple(modality.name for modality in self.modalities)
        try:
            self._rows = data.load(config.data, workdir / "data", names).test
        except SbmError as error:
            self.lacks_rows = str(error)
        num_rows = 0 if self._rows is None else len(self._rows)
        self.choices = Choices(systems, names, tuple(SOLVERS), num_rows)
        given = names[:MOST_GIVEN_AT_FIRST] if num_rows and len(names) > 1 else ()
        options = config.sampler
        self.defaults = Settings(
            systems[0],
            0 if num_rows else None,
            given,
            tuple(name for name in names if name not in given),
            *(options.solver, options.num_steps, None),
            samples=4,
            seed=0,
        )

    def row(self, number: int | None) -> dict[str, Any]:
        """Return {modality: row} of a held-out row, in the form of the training data; {} for None.

        Raises:
          SbmError: if there is no such row.
        """
        if number is None or self._rows is None:
            return {}
        if not 0 <= number < self.choices.num_rows:
            raise SbmError(f"row is {number}; expected 0 to {self.choices.num_rows - 1}.")
        found = self._rows.read(self.choices.modalities, np.array([number]))
        there = self._rows.present or {}
        return {name: rows[0] for name, rows in found.items() if name not in there or there[name][number]}

    def draw(self, settings: Settings, own: Mapping[str, Any]) -> Drawn:
        """Generate samples.

        Args:
          settings: the chosen settings.
          own: {modality: row} of the user's own data, in the form of the training data; replace the held-out row's.

        Raises:
          SbmError: on invalid settings, a request that `generate` refuses, or a ticked modality without data.
        """
        self.choices.check(settings)
        there = {**self.row(settings.row), **own}
        for name in settings.given:
            if name not in there:
                raise SbmError(f"{name!r} is ticked as given, but has no data. Give a file of it, or choose a row.")
        given = {name: there[name] for name in settings.given}
        targets = [name for name in settings.targets if name not in given]
        if not targets:
            raise SbmError("there is nothing to generate. Tick a target that is not given.")
        with self._lock:  # one at a time, because each call uses the whole machine
            model = self._model(settings.system)
            options = sampler_options(model, settings.solver, settings.steps)
            before, start = model.num_compiled, time.monotonic()
            samples = model.generate(
                {name: [row] for name, row in given.items()},
                targets,
                batch_size=1,
                num_samples=settings.samples,
                seed=settings.seed,
                strength=settings.strength,
                options=options,
            )
            return _drawn(given, samples, time.monotonic() - start, model.num_compiled > before)

    def _model(self, name: str) -> TrainedSystem:
        """Return a system, loading it on first use."""
        if name not in self._models:
            self._models[name] = load_quickly(self._workdir, name)
        return self._models[name]


def _drawn(given: dict[str, Any], samples: Generated, seconds: float, compiled: bool) -> Drawn:
    found = {name: rows[0] for name, rows in samples.data.items()}
    return Drawn(given, found, {name: int(value) for name, value in samples.info.items()}, seconds, compiled)
