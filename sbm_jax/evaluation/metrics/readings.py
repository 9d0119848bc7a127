"""F1 score of what readers predict from generated data: does an image keep the row's mask or attributes?"""

from collections.abc import Sequence

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.estimates import BATCHES, Estimate, estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Plan, Scene
from sbm_jax.evaluation.metrics.binary import BinaryOptions
from sbm_jax.evaluation.metrics.f1 import F1

UNREAD = "config.readers has no network that reads it"


@checked_dataclass
class ReadingsOptions(BinaryOptions):
    """The generated modality (`modality`), the given ones, and the modality read from the generated one.

    Attributes:
      target: the binary modality that a reader of `config.readers` predicts from the generated one; it may be given.
    """

    target: str = ""


class Readings(F1):
    """The F1 score of a reader's predictions from generated data, and from real held-out data; see `f1.F1`."""

    Options = ReadingsOptions
    name = "readings"
    compared = "target"

    def __init__(self, options: ReadingsOptions, scene: Scene):
        """Request the modality given the others if there is a reader."""
        super().__init__(options, scene)
        source, target = options.modality, options.target
        given = options.given or tuple(name for name in scene.modalities if name != source)
        self.complete[source] = scene.examples.having((target, *given))
        if (source, target) not in scene.tools.readers:
            self.reasons, self.wanted, self.values, self.asks = {source: UNREAD}, {}, {}, ()

    @classmethod
    def check(cls, options: ReadingsOptions, plan: Plan) -> None:
        """Check that modalities are known, and that the target is not the generated one."""
        super().check(options, plan)
        field = "config.evaluation.metrics.readings.target"
        if options.target not in plan.modalities:
            raise unknown(f"modality ({field}):", options.target, plan.modalities)
        if options.target == options.modality:
            raise SbmError(f"{field} is {options.target!r}, which is generated. Name the modality to read from it.")

    def look(self, draw: Draw) -> None:
        """Read the target from the samples and compare it with the row's."""
        source, target = self.options.modality, self.options.target
        there = self.complete[source][draw.rows]
        if self.wanted.get(source) == draw.ask and there.any():
            found = self.compare(draw.real(target)[there], draw.read(source, target)[there])
            self.values[source][draw.repeat].append(found)

    def estimates(self, label: str, groups: Sequence[np.ndarray]) -> dict[str, Estimate]:
        """Return the mean score, under a name that ends with the target."""
        return {f"{self.name}/f1/{label}/{self.options.target}": estimate(groups)}

    def result(self) -> Evaluation:
        """Return the score of samples, and of real rows that have both modalities."""
        found = super().result()
        name = f"{self.name}/f1/real/{self.options.modality}/{self.options.target}"
        return found._replace(metrics=found.metrics | ({name: self._of_examples()} if self.wanted else {}))

    def _of_examples(self) -> Estimate:
        source, target = self.options.modality, self.options.target
        scene = self.scene
        rows = np.flatnonzero(scene.examples.having((source, target)))
        scores = []
        for indices, count in batches(len(rows), scene.batch_size):
            x, y = (in_units(scene.examples.data[name][rows[indices]]) for name in (source, target))
            scores.append(self.compare(y, scene.tools.readers[source, target].read(x))[:count])
        return estimate(scores, BATCHES)
