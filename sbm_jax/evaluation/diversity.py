"""Do samples for the same condition differ as much as real examples of one class?"""

from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.generation import Requests, as_float

GIVEN_ONE = "diversity/given_1"
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

    Squared distances; a mean over the unobserved modalities, nan where a sample is not finite.

    Args:
      samples: {modality: [R, *shape]}, pairs next to each other.
      observed: bool [R, M], equal within a pair.
      reference: {modality: the mean squared distance of real examples}.
    """
    distances = np.stack(
        [
            np.mean((values[::2] - values[1::2]).reshape(len(values) // 2, -1) ** 2, axis=1) / reference[name]
            for name, values in samples.items()
        ],
        axis=1,
    )
    return np.where(observed[::2], 0.0, distances).sum(axis=1) / np.maximum((~observed[::2]).sum(axis=1), 1)


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
        own = [2 * np.mean(np.var(as_float(values[members]), axis=0, ddof=1)) for members in classes]
        return float(np.average(own, weights=sizes))

    return {name: distance(values) for name, values in data.items()} if classes else {}
