"""Shares of classes, and what a perfect generator would get by chance."""

import math

import numpy as np
import pytest

from sbm_jax.evaluation.metrics import class_shares
from sbm_jax.evaluation.metrics.base import NO_CLASS

LABELS = np.repeat(np.arange(5), [40, 30, 20, 10, 0])  # of six classes, two of which real data lack


def test_shares_are_over_modalities_and_count_joint_samples():
    predicted = np.array([[0, 0], [1, 2]])
    metrics, _ = class_shares.measure([predicted, predicted], 3, np.arange(3))
    assert metrics["class_0"] == (0.5, 0.0, 4, "repeats")
    assert metrics["class_1"].value == 0.25
    assert metrics["min"].value == 0.25
    assert metrics["total_variation"] == (pytest.approx((1 / 6 + 2 / 12) / 2), None, 4, "")


def test_a_perfect_generator_gets_what_is_expected():
    """Its joint samples show one class in all modalities, drawn from the classes of real data."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        classes = rng.choice(LABELS, (3, 50))
        found.append(class_shares.measure([np.repeat(c[:, None], 4, axis=1) for c in classes], 6, LABELS)[0])
    for name in ("min", "total_variation"):
        values = np.array([metrics[f"{name}"].value for metrics in found])
        expected = found[0][f"{name}_expected"]
        assert expected.spread == "draws"
        assert expected.n == 150
        assert values.mean() == pytest.approx(expected.value, abs=4 * values.std() / 200**0.5)
        assert values.std() == pytest.approx(expected.std, rel=0.2)
    assert found[0]["min_expected"].value < 0.1  # the share of the rarest class, in expectation


def test_the_expected_minimum_is_that_of_a_binomial():
    count, p = 20, np.array([0.6, 0.4])
    probabilities = [math.comb(count, k) * p[0] ** k * p[1] ** (count - k) for k in range(count + 1)]
    exact = sum(weight * min(k, count - k) / count for k, weight in enumerate(probabilities))
    assert class_shares.of_perfect(p, count)["min_expected"].value == pytest.approx(exact, abs=0.005)


def test_a_lost_class_and_samples_without_a_class_are_seen():
    predicted = np.full((100, 2), 1)
    metrics, _ = class_shares.measure([predicted], 6, LABELS)
    assert metrics["min"].value == 0
    assert metrics["total_variation"].value == pytest.approx(0.7)
    nothing, _ = class_shares.measure([np.full((100, 2), NO_CLASS)], 6, LABELS)
    assert nothing["total_variation"].value == 1
    assert all(nothing[f"class_{k}"].value == 0 for k in range(6))


def test_classes_that_real_data_lack_are_not_the_rarest():
    metrics, _ = class_shares.measure([np.repeat(LABELS[:, None], 2, axis=1)], 6, LABELS)
    assert metrics["min"].value == 0.1
    assert metrics["total_variation"].value == pytest.approx(0, abs=1e-12)


def test_without_labels_there_is_nothing_to_expect():
    metrics, missing = class_shares.measure([np.array([[0, 1], [1, 1]])], 2, None)
    assert metrics["min"].value == 0.25
    assert missing.keys() == {f"{x}" for x in ("min_expected", "total_variation", "total_variation_expected")}
