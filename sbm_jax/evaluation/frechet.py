"""The Fréchet distance of two sets of features, as Gaussians, with its error and without the bias of small samples."""

import functools
from typing import NamedTuple

import numpy as np

from sbm_jax.evaluation.estimates import Estimate

NUM_GROUPS = 10  # of the jackknife
NUM_SIZES = 8  # of the extrapolation


class Moments(NamedTuple):
    """Running moments of features, in float64.

    Attributes:
      count: N.
      mean: [D].
      scatter: Σ (x - mean)(x - mean)ᵀ, [D, D].
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance [D, D]."""
        return self.scatter / (self.count - 1)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together."""
        count = self.count + other.count
        shift = other.mean - self.mean
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, self.mean + shift * (other.count / count), self.scatter + other.scatter + between)


def moments(features: np.ndarray, batch_size: int = 2048) -> Moments:
    """Return the moments of features [N, D], taken in batches."""
    parts = (features[start : start + batch_size] for start in range(0, len(features), batch_size))
    return functools.reduce(Moments.merge, map(_moments_of_batch, parts))


def _moments_of_batch(features: np.ndarray) -> Moments:
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


class Gaussian(NamedTuple):
    """What is needed of the reference: its mean [D], the trace of its covariance, and the root of that, [D, D]."""

    mean: np.ndarray
    trace: float
    root: np.ndarray


def gaussian(reference: Moments) -> Gaussian:
    """Return the Gaussian with the given moments."""
    values, vectors = np.linalg.eigh(reference.covariance)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    return Gaussian(reference.mean, float(values.sum()), root)


def distance(features: np.ndarray, reference: Gaussian) -> float:
    """Return ‖μ - μ_r‖² + tr(Σ + Σ_r - 2 (Σ_r^½ Σ Σ_r^½)^½), μ and Σ being the moments of the features [N, D].

    Reference: M. Heusel et al., 2017, Eq. 6. https://arxiv.org/abs/1706.08500
    """
    return _distance(features.astype(np.float64), features.astype(np.float64) @ reference.root, reference)


def _distance(features: np.ndarray, rotated: np.ndarray, reference: Gaussian) -> float:
    """Return the distance of features X [N, D], given X Σ_r^½.

    The root's trace is a sum of singular values of the centred X Σ_r^½, which the smaller Gram matrix has.
    """
    count = len(features)
    mean = features.mean(axis=0)
    variance = np.sum((features - mean) ** 2) / (count - 1)
    rotated = rotated - rotated.mean(axis=0)
    gram = rotated @ rotated.T if count < rotated.shape[1] else rotated.T @ rotated
    shared = np.sqrt(np.linalg.eigvalsh(gram / (count - 1)).clip(min=0.0)).sum()
    return float(np.sum((mean - reference.mean) ** 2) + variance + reference.trace - 2 * shared)


def measure(features: np.ndarray, reference: Gaussian, seed: int = 0) -> dict[str, Estimate]:
    """Return the distance, and its extrapolation to samples without end.

    The distance of N samples is too large by about a constant over N. A line through the distances of random subsets of
    N/4 to N, against one over their size, ends at the extrapolation. The spread of the distance is the standard error
    that a jackknife over `NUM_GROUPS` groups gives, that of the extrapolation the standard error of the line's end: a
    95 % interval is 1.96 of them to each side.

    Args:
      features: [N, D], N at least `NUM_SIZES` times 4.
      reference: see `gaussian`.
      seed: of the subsets.

    Returns:
      ``frechet`` and ``frechet_infinity``.

    Reference: M. J. Chong and D. Forsyth, "Effectively Unbiased FID", 2020. https://arxiv.org/abs/1911.07023
    """
    features = features.astype(np.float64)
    rotated = features @ reference.root
    count, draws = len(features), np.random.default_rng(seed)

    def of(rows: np.ndarray) -> float:
        return _distance(features[rows], rotated[rows], reference)

    value = of(np.arange(count))
    sizes = np.linspace(count // 4, count, NUM_SIZES).astype(int)
    distances = [of(draws.permutation(count)[:size]) for size in sizes[:-1]]
    line, covariance = np.polyfit(1.0 / sizes, [*distances, value], 1, cov=True)
    groups = np.array_split(draws.permutation(count), NUM_GROUPS)
    left_out = [of(np.delete(np.arange(count), group)) for group in groups]
    error = np.sqrt((NUM_GROUPS - 1) * np.var(left_out))
    return {
        "frechet": Estimate(value, float(error), count),
        "frechet_infinity": Estimate(float(line[1]), float(np.sqrt(covariance[1, 1])), count),
    }
