"""Do samples for one condition differ as much as real examples of one class?"""

import collections
from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.batches import finite_rows, in_units
from sbm_jax.evaluation.estimates import estimate
from sbm_jax.evaluation.metrics.base import ALONE, NO_LABELS, Draw, Evaluation, Metric, NoOptions, Scene
from sbm_jax.evaluation.observed_sets import RANDOM, Ask

METRIC = "diversity/given_1"
MOST_PAIRS = 500  # both samples of every pair are kept in memory
PAIRS = Ask(RANDOM, 1, num_samples=2, num_rows=MOST_PAIRS)


class Diversity(Metric):
    """The distance between two samples given the same modality, relative to that of real examples of one class."""

    def __init__(self, options: NoOptions, scene: Scene):
        """Measure the real examples; request pairs of samples if these differ."""
        super().__init__(options, scene)
        self.reference: dict[str, float] = {}
        for name in scene.modalities if scene.examples.labels else ():
            there = scene.examples.take(np.flatnonzero(scene.examples.having([name])))
            self.reference |= within_class_distances({name: there.data[name]}, joint_labels(there.labels))
        self.reason = self._reason()
        self.asks = () if self.reason else (PAIRS,)
        self.observed: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        self.samples: dict[int, dict[str, list[np.ndarray]]] = {}  # {repeat: {modality: samples of each draw}}

    def _reason(self) -> str | None:
        if not self.scene.examples.labels:
            return NO_LABELS
        if len(self.scene.modalities) < 2:
            return ALONE
        if not any(self.reference.values()):
            return "no two of the real examples have the same label and differ"
        return None

    def look(self, draw: Draw) -> None:
        """Collect the samples; a pair may be split between two calls."""
        self.observed[draw.repeat].append(draw.observed)
        samples = self.samples.setdefault(draw.repeat, collections.defaultdict(list))
        for name in self.scene.modalities:
            samples[name].append(draw.generated(name))

    def result(self) -> Evaluation:
        """Return the mean over pairs."""
        if self.reason:
            return Evaluation({}, {METRIC: self.reason}, {})
        missing = {
            f"{METRIC}/{name}": "left out of the mean: real examples of one class do not differ in it"
            for name, distance in self.reference.items()
            if not distance
        }
        finite = []
        for repeat, parts in self.samples.items():
            samples = {name: np.concatenate(values) for name, values in parts.items()}
            values = relative_distances(samples, np.concatenate(self.observed[repeat]), self.reference)
            finite.append(values[np.isfinite(values)])
        if not any(map(len, finite)):
            return Evaluation({}, missing | {METRIC: "no pair of samples is finite"}, {})
        return Evaluation({METRIC: estimate(finite)}, missing, {})


def joint_labels(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a label for each row, int [N], equal for rows with the same answers to all questions."""
    answers = np.stack(list(labels.values()), axis=1)
    return np.unique(answers, axis=0, return_inverse=True)[1].reshape(-1)


def relative_distances(
    samples: Mapping[str, np.ndarray], observed: np.ndarray, reference: Mapping[str, float]
) -> np.ndarray:
    """Return the distance between the two samples of each pair relative to the reference, [R / 2].

    Distances are squared or, for ids, the share of positions that differ. They are averaged over the unobserved
    modalities with a reference above 0; NaN if there is none, or a sample is not finite.

    Args:
      samples: {modality: [R, *shape]}, pairs next to each other.
      observed: bool [R, M], True = given, equal within a pair.
      reference: {modality: mean squared distance between real examples}.
    """
    names = list(samples)
    measured = np.array([reference[name] > 0 for name in names])
    distances = np.zeros((len(observed) // 2, len(names)))
    for m in np.flatnonzero(measured):
        distances[:, m] = _distances(samples[names[m]]) / reference[names[m]]
    counted = ~observed[::2] & measured
    count = counted.sum(axis=1)
    sums = np.where(counted, distances, 0.0).sum(axis=1)
    return np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)


def _distances(values: np.ndarray) -> np.ndarray:
    """Return the distance between the two samples of each pair, [R / 2], of values [R, *shape]."""
    if values.dtype.kind == "i":
        both = finite_rows(values).reshape(-1, 2).all(axis=1)
        return np.where(both, np.mean(values[::2] != values[1::2], axis=1), np.nan)
    pairs = (values[::2] - values[1::2]).reshape(len(values) // 2, -1)
    return np.mean(pairs**2, axis=1)


_ROUNDING = 1e-10  # share of the mean square: smaller differences are float32 rounding errors


def within_class_distances(data: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Return the mean squared distance per entry between different real examples with the same label.

    E‖x - x'‖² = 2 Σ_d Var x_d within a class, with the unbiased variance, averaged over classes weighted by size. For
    ids it is the share of positions that differ.

    Args:
      data: {modality: [N, *shape]}.
      labels: int [N].
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    classes = [members for members in classes if len(members) > 1]
    sizes = [len(members) for members in classes]

    def distance(values: np.ndarray) -> float:
        if values.dtype.kind == "i":
            return float(np.average([_differing(values[members]) for members in classes], weights=sizes))
        least = _ROUNDING * np.mean(np.square(in_units(values), dtype=np.float64))
        # In float64, the variance of equal float32 values is exactly 0.
        own = [2 * np.mean(np.var(in_units(values[members]), axis=0, ddof=1, dtype=np.float64)) for members in classes]
        mean = float(np.average(own, weights=sizes))
        return mean if mean > least else 0.0

    return {name: distance(values) for name, values in data.items()} if classes else {}


def _differing(ids: np.ndarray) -> float:
    """Return the share of positions in which two rows of ids [N, L] differ, averaged over pairs of different rows."""
    count = len(ids)
    equal = [np.sum(number * (number - 1)) for number in (np.unique(c, return_counts=True)[1] for c in ids.T)]
    return float(1 - np.mean(equal) / (count * (count - 1)))
