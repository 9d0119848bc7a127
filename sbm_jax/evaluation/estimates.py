"""Estimates: measured numbers with their spread and sample count."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

REPEATS = "repeats"
"""Standard deviation (ddof = 1) over repeats with different noise and the same test rows."""

BATCHES = "batches"
"""Standard deviation (ddof = 1) over batches of rows, for deterministic quantities."""

CALLS = "calls"
"""Standard deviation (ddof = 1) over timed calls."""

STANDARD_ERROR = "standard_error"
"""Standard error of the value, from the spread of the samples."""

ERROR_BOUND = "standard_error_bound"
"""Upper bound on the standard error of a mean over modalities; see `average`."""

SUBSETS = "subsets"
"""Standard deviation over random subsets of the samples, which is not an error of the mean."""

DRAWS = "draws"
"""Standard deviation over simulated data sets of a perfect generator."""

SPREADS = (REPEATS, BATCHES, CALLS, STANDARD_ERROR, ERROR_BOUND, SUBSETS, DRAWS)


class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
      value: mean over all samples.
      std: spread of the value, or None if unknown.
      n: number of samples.
      spread: kind of spread that `std` is, one of `SPREADS`; "" if it is None.
    """

    value: float
    std: float | None
    n: int
    spread: str = ""


def estimate(groups: Sequence[np.ndarray], spread: str = REPEATS) -> Estimate:
    """Return the mean of per-sample outcomes, with equal weights for all samples, whatever the sizes of groups.

    The spread is the standard deviation of the groups' means, if there are two or more.

    Args:
      groups: per-sample outcomes [n_g] of each repeat or batch; empty groups are ignored.
      spread: kind of the groups, one of `SPREADS`.

    Raises:
      ValueError: if there is no sample.
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
    """Return the mean of estimates over several modalities.

    Modalities are generated from the same rows, or in the same joint samples, so their errors are not independent.
    Whatever their correlation, the standard error of the mean is at most the mean of the standard errors (triangle
    inequality), which is used as a bound. For other or mixed kinds of spread, the spread of the mean is unknown.

    Args:
      metrics: {name: estimate}.
      names: names of one measure for all modalities.
    """
    chosen = [metrics[name] for name in names]
    if len(chosen) == 1:
        return chosen[0]
    value, count = float(np.mean([e.value for e in chosen])), sum(e.n for e in chosen)
    if {e.spread for e in chosen} != {STANDARD_ERROR}:
        return Estimate(value, None, count)
    return Estimate(value, float(np.mean([e.std for e in chosen])), count, ERROR_BOUND)
