"""A measured number with its spread and its sample count."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

REPEATS = "repeats"
"""Standard deviation (ddof = 1) over repeats with other noise; the test rows are the same in all."""

BATCHES = "batches"
"""Standard deviation (ddof = 1) over batches of rows, of what has no randomness."""

CALLS = "calls"
"""Standard deviation (ddof = 1) over timed calls."""

STANDARD_ERROR = "standard_error"
"""Standard error of the value, from the spread of the samples."""

ERROR_BOUND = "standard_error_bound"
"""Upper bound of the standard error of a mean over modalities, see `average`."""

SUBSETS = "subsets"
"""Standard deviation over random subsets of the samples, which is not an error of their mean."""

DRAWS = "draws"
"""Standard deviation over simulated data sets of a perfect generator."""

SPREADS = (REPEATS, BATCHES, CALLS, STANDARD_ERROR, ERROR_BOUND, SUBSETS, DRAWS)


class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
      value: the mean over all samples.
      std: its spread, None where that is not known.
      n: the number of samples averaged.
      spread: what `std` is, one of `SPREADS`; "" where it is None.
    """

    value: float
    std: float | None
    n: int
    spread: str = ""


def estimate(groups: Sequence[np.ndarray], spread: str = REPEATS) -> Estimate:
    """Return the mean of per-sample outcomes, every sample weighted equally whatever the size of its group.

    Args:
      groups: per-sample outcomes [n_g] of each repeat or batch; empty groups are left out.
      spread: what the groups are: the spread is the standard deviation of their means, where there are two or more.

    Raises:
      ValueError: when there is no sample.
    """
    groups = [np.asarray(group, np.float64) for group in groups if len(group)]
    if not groups:
        raise ValueError("an estimate needs at least one sample.")
    outcomes = np.concatenate(groups)
    if len(groups) == 1:
        return Estimate(float(outcomes.mean()), None, len(outcomes))
    std = float(np.std([group.mean() for group in groups], ddof=1))
    return Estimate(float(outcomes.mean()), std, len(outcomes), spread)


def average(metrics: Mapping[str, Estimate], names: Sequence[str]) -> Estimate:
    """Return the mean of estimates of several modalities.

    Modalities are generated from the same rows, or in the same joint samples, so that their errors are not independent.
    Whatever their correlation, the standard error of the mean is at most the mean of the standard errors (the triangle
    inequality), which is taken as a bound. Of other spreads, or different ones, nothing is known of the mean's.

    Args:
      metrics: estimates by name.
      names: those of one measure in all modalities.
    """
    chosen = [metrics[name] for name in names]
    if len(chosen) == 1:
        return chosen[0]
    value, count = float(np.mean([e.value for e in chosen])), sum(e.n for e in chosen)
    if {e.spread for e in chosen} != {STANDARD_ERROR}:
        return Estimate(value, None, count)
    return Estimate(value, float(np.mean([e.std for e in chosen])), count, ERROR_BOUND)
