"""The Fréchet distance between two sets of features, as Gaussians, with its error and corrected for small samples.

Letters: N samples, D features; μ, Σ are moments of the samples, μ_r, Σ_r of the reference.
"""

import functools
from typing import NamedTuple

import numpy as np

from sbm_jax.evaluation.estimates import STANDARD_ERROR, Estimate


class Moments(NamedTuple):
    """Running moments of features, in float64.

    Attributes:
      count: N.
      mean: mean, [D].
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
        """Return the moments of the union of both sets."""
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
    """The moments of the reference: μ_r [D], tr Σ_r, and Σ_r^½ [D, D]."""

    mean: np.ndarray
    trace: float
    root: np.ndarray


def gaussian(reference: Moments) -> Gaussian:
    """Return the Gaussian with the given moments."""
    values, vectors = np.linalg.eigh(reference.covariance)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    return Gaussian(reference.mean, float(values.sum()), root)


def distance(features: np.ndarray, reference: Gaussian) -> float:
    """Return ‖μ - μ_r‖² + tr(Σ + Σ_r - 2 (Σ_r^½ Σ Σ_r^½)^½) of features [N, D].

    Reference: M. Heusel et al., 2017, Eq. 6. https://arxiv.org/abs/1706.08500
    """
    return _distance_and_error(features.astype(np.float64), reference)[0]


def _distance_and_error(features: np.ndarray, reference: Gaussian) -> tuple[float, float]:
    """Return the distance and its standard error.

    With Y = (X - μ) Σ_r^½, the trace of the root is the sum of the singular values of Y / √(N - 1), computed from the
    smaller Gram matrix. To first order, the distance is the mean over samples of

        2 (μ - μ_r)ᵀ(x - μ) + ‖x - μ‖² - y ((YᵀY)^½)⁺ yᵀ √(N - 1),

    the derivative of the distance in the direction of each sample, whose spread gives the error.
    """
    count = len(features)
    mean = features.mean(axis=0)
    centred = features - mean
    rotated = centred @ reference.root / np.sqrt(count - 1)
    values, influence = _root(rotated)
    squares = np.sum(centred**2, axis=1)
    shift = mean - reference.mean
    value = np.sum(shift**2) + squares.sum() / (count - 1) + reference.trace - 2 * values.sum()
    terms = 2 * centred @ shift + squares - influence * (count - 1)
    return float(value), float(np.std(terms, ddof=1) / np.sqrt(count))


def _root(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the singular values of rows Y [N, D], and y (YᵀY)^(-½)⁺ yᵀ of each row y, [N]."""
    wide = len(rows) < rows.shape[1]
    squares, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values = np.sqrt(squares.clip(min=0.0))
    # Values that are 0 up to rounding have no direction.
    kept = values > 1e-7 * values.max(initial=0.0)
    if wide:  # y (YᵀY)^(-½)⁺ yᵀ = Σ u² s for the left vectors u
        return values, (vectors[:, kept] ** 2) @ values[kept]
    return values, ((rows @ vectors[:, kept]) ** 2) @ (1.0 / values[kept])


def measure(features: np.ndarray, reference: Gaussian) -> dict[str, Estimate]:
    """Return the distance and, for more than two samples per feature, its extrapolation to infinitely many samples.

    The distance of N samples is too large by about a constant over N, so twice the distance of all samples minus the
    mean distance of the two halves is free of this bias; to first order, the sampling error is the same. If a half has
    fewer than D samples, the bias has another form and nothing is extrapolated. The bias of a small reference always
    remains. A 95 % confidence interval is ±1.96 standard errors.

    Args:
      features: [N, D], in random order.
      reference: see `gaussian`.

    Returns:
      ``frechet`` and, for N > 2 D, ``frechet_infinity``.

    Reference: M. J. Chong and D. Forsyth, "Effectively Unbiased FID", 2020, who fit a line to more sizes.
      https://arxiv.org/abs/1911.07023
    """
    features = features.astype(np.float64)
    count = len(features)
    value, error = _distance_and_error(features, reference)
    measured = {"frechet": Estimate(value, error, count, STANDARD_ERROR)}
    if count // 2 > features.shape[1]:
        halves = [_distance_and_error(half, reference)[0] for half in np.array_split(features, 2)]
        infinity = 2 * value - float(np.mean(halves))
        measured["frechet_infinity"] = Estimate(infinity, error, count, STANDARD_ERROR)
    return measured
