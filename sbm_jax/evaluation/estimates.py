"""A measured number with its spread and its sample count."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
      value: the mean over all samples.
      std: standard deviation (ddof = 1) of the groups' means. Groups are repeats with other seeds, or batches
        where there is no randomness; None with a single group.
      n: the number of samples averaged, over all groups.
    """

    value: float
    std: float | None
    n: int


def estimate(groups: Sequence[np.ndarray]) -> Estimate:
    """Return the mean of per-sample outcomes, every sample weighted equally whatever the size of its group.

    Args:
      groups: per-sample outcomes [n_g] of each repeat or batch; empty groups are left out.

    Raises:
      ValueError: when there is no sample.
    """
    groups = [np.asarray(group, np.float64) for group in groups if len(group)]
    if not groups:
        raise ValueError("an estimate needs at least one sample.")
    outcomes = np.concatenate(groups)
    std = float(np.std([group.mean() for group in groups], ddof=1)) if len(groups) > 1 else None
    return Estimate(float(outcomes.mean()), std, len(outcomes))
