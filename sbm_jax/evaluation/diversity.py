"""Do samples for the same condition differ as much as real examples of one class?"""

from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.generation import Requests, as_float
from sbm_jax.evaluation.observed_sets import DIVERSITY, Group

METRIC = "diversity/given_1"
GIVEN_ONE = Group(DIVERSITY, 1)
MOST_PAIRS = 500  # both samples of every pair are kept in memory


def requests(rows: np.ndarray, observed: np.ndarray) -> Requests:
    """Return the requests of two samples for each of the first `MOST_PAIRS` rows, next to each other.

    Args:
      rows: int [R].
      observed: bool [R, M].
    """
    return Requests(np.repeat(rows[:MOST_PAIRS], 2), np.repeat(observed[:MOST_PAIRS], 2, axis=0))


def relative_distances(
    samples: Mapping[str, np.ndarray], observed: np.ndarray, reference: Mapping[str, float]
) -> np.ndarray:
    """Return how far the two samples of each pair are apart, in units of the reference: [R / 2].

    Squared distances; a mean over the unobserved modalities whose reference is above 0, nan where there is none, or a
    sample is not finite.

    Args:
      samples: {modality: [R, *shape]}, pairs next to each other.
      observed: bool [R, M], equal within a pair.
      reference: {modality: the mean squared distance of real examples}.
    """
    names = list(samples)
    measured = np.array([reference[name] > 0 for name in names])
    distances = np.zeros((len(observed) // 2, len(names)))
    for m in np.flatnonzero(measured):
        values = samples[names[m]]
        pairs = (values[::2] - values[1::2]).reshape(len(distances), -1)
        distances[:, m] = np.mean(pairs**2, axis=1) / reference[names[m]]
    counted = ~observed[::2] & measured
    count = counted.sum(axis=1)
    sums = np.where(counted, distances, 0.0).sum(axis=1)
    return np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)


_ROUNDING = 1e-10  # of the mean square: examples that differ by no more are equal, but for how float32 rounds them


def within_class_distances(data: Mapping[str, np.ndarray], labels: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Return the mean squared distance, per entry, of different real examples with the same label.

    E‖x - x'‖² = 2 Σ_d Var x_d within a class, with the unbiased variance; a mean over classes, by their size.

    Args:
      data: {modality: [N, *shape]}.
      labels: int [N].
      rows: int [R], the examples to compare.
    """
    classes = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    classes = [members for members in classes if len(members) > 1]
    sizes = [len(members) for members in classes]

    def distance(values: np.ndarray) -> float:
        least = _ROUNDING * np.mean(np.square(as_float(values[rows]), dtype=np.float64))
        # In float64, where the variance of equal float32 values is exactly 0.
        own = [2 * np.mean(np.var(as_float(values[members]), axis=0, ddof=1, dtype=np.float64)) for members in classes]
        mean = float(np.average(own, weights=sizes))
        return mean if mean > least else 0.0

    return {name: distance(values) for name, values in data.items()} if classes else {}
