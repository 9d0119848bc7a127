"""Means, what their spread is, and means over modalities."""

import numpy as np
import pytest

from sbm_jax.evaluation.estimates import (
    BATCHES,
    ERROR_BOUND,
    REPEATS,
    SPREADS,
    STANDARD_ERROR,
    SUBSETS,
    Estimate,
    average,
    estimate,
)


def test_samples_are_weighted_not_groups():
    result = estimate([np.array([1.0, 1.0, 1.0]), np.array([0.0])], BATCHES)
    assert result == (pytest.approx(3 / 4), pytest.approx(np.sqrt(0.5)), 4, BATCHES)
    assert estimate([np.zeros(2), np.ones(2)]).spread == REPEATS


def test_one_group_has_no_spread():
    assert estimate([np.array([1, 0])]) == (0.5, None, 2, "")
    with pytest.raises(ValueError, match="at least one sample"):
        estimate([np.array([])])


def _average(*estimates):
    return average({str(i): e for i, e in enumerate(estimates)}, [str(i) for i in range(len(estimates))])


def test_the_error_of_a_mean_over_modalities_holds_for_dependent_ones():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 50))  # of each data set: its rows, in all modalities the same
    means = shared.mean(axis=1)
    one = Estimate(0.0, 1 / 50**0.5, 50, STANDARD_ERROR)
    found = _average(one, one, one)
    assert found.spread == ERROR_BOUND
    assert found.std == pytest.approx(means.std(), rel=0.05)
    assert found.n == 150


def test_spreads_that_are_no_errors_or_differ_are_not_combined():
    errors, subsets = Estimate(1.0, 0.1, 10, STANDARD_ERROR), Estimate(3.0, 0.1, 10, SUBSETS)
    assert _average(errors, subsets) == (2.0, None, 20, "")
    assert _average(subsets, subsets) == (3.0, None, 20, "")
    assert _average(errors, Estimate(2.0, None, 10)) == (1.5, None, 20, "")
    assert _average(subsets) == subsets  # one modality: its own


def test_kinds_of_spread_have_different_names():
    assert len(set(SPREADS)) == len(SPREADS)
