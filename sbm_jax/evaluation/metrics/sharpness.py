"""Are generated images as sharp as real ones?"""

import collections

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import unknown
from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.batches import finite_rows, in_units
from sbm_jax.evaluation.estimates import average, estimate
from sbm_jax.evaluation.metrics.base import ALONE, Draw, Evaluation, Metric, Plan, Scene
from sbm_jax.evaluation.observed_sets import GIVEN_REST, UNCONDITIONAL

SETS = (GIVEN_REST, UNCONDITIONAL)


@checked_dataclass
class SharpnessOptions:
    """The samples to compare with real images.

    Attributes:
      sets: families of observed sets, from `SETS`.
    """

    sets: tuple[str, ...] = (GIVEN_REST,)

    def __post_init__(self):
        for name in self.sets:
            if name not in SETS:
                raise unknown("set of samples in evaluation.metrics.sharpness.sets:", name, SETS)


class Sharpness(Metric):
    """The mean absolute difference between neighbouring pixels, relative to real images: 1 is equally sharp."""

    Options = SharpnessOptions

    def __init__(self, options: SharpnessOptions, scene: Scene):
        """Measure the real examples; request samples of the image modalities that are not constant."""
        super().__init__(options, scene)
        pictures = [name for name in scene.modalities if name in scene.tools.pictures]
        real = {name: scene.examples.data[name][scene.examples.having([name])] for name in pictures}
        means = {name: roughness(in_units(values)).mean() for name, values in real.items()}
        self.reference = {name: mean for name, mean in means.items() if mean > 0}
        wanted = {GIVEN_REST: list(self.reference)}
        self.asks = tuple(
            ask
            for name in options.sets
            for ask in observed_sets.asks(name, scene.modalities, wanted.get(name, ()))
            if self.reference
        )
        self.found: dict[tuple[str, str], dict[int, list[np.ndarray]]] = {}

    @classmethod
    def check(cls, options: SharpnessOptions, plan: Plan) -> None:
        """Check nothing: without images, the results say that nothing was measured."""
        del options, plan

    def look(self, draw: Draw) -> None:
        """Measure the samples."""
        for name in [draw.ask.target] if draw.ask.target else self.reference:
            samples = draw.generated(name)
            values = roughness(samples[finite_rows(samples)]) / self.reference[name]
            of_set = self.found.setdefault((draw.ask.family, name), collections.defaultdict(list))
            of_set[draw.repeat].append(values)

    def result(self) -> Evaluation:
        """Return the means over samples, and over modalities."""
        metrics, missing = {}, {}
        for family in self.options.sets:
            label, names = f"sharpness/{family}", []
            for name in self.reference:
                groups = [np.concatenate(parts) for parts in self.found.get((family, name), {}).values()]
                if any(map(len, groups)):
                    names.append(f"{label}/{name}")
                    metrics[names[-1]] = estimate(groups)
            if names:
                metrics[label] = average(metrics, names)
            else:
                missing[label] = self._reason(family)
        return Evaluation(metrics, missing, {})

    def _reason(self, family: str) -> str:
        if not self.reference:
            return "no modality has images (height, width, channels) that vary"
        return ALONE if family == GIVEN_REST and len(self.scene.modalities) < 2 else "no sample is finite"


def roughness(pictures: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference between neighbouring pixels of images [N, H, W, C], [N]."""
    steps = [np.abs(np.diff(pictures, axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2) if pictures.shape[axis] > 1]
    return np.mean(steps, axis=0) if steps else np.zeros(len(pictures))
