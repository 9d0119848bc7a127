"""Kernel distance, precision, recall, density and coverage against plain loops."""

import numpy as np
import pytest

from sbm_jax.evaluation import fidelity

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 5)).astype(np.float32)
GENERATED = (RNG.normal(size=(40, 5)) + 0.7).astype(np.float32)


def test_squared_mmd_is_the_mean_over_pairs():
    x, y = REAL[:12].astype(float), GENERATED[:12].astype(float)

    def kernel(a, b):
        return (a @ b / 5 + 1) ** 3

    pairs = [(i, j) for i in range(12) for j in range(12)]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / (12 * 11)
    between = sum(kernel(x[i], y[j]) for i, j in pairs) / 144
    assert fidelity.squared_mmd(REAL[:12], GENERATED[:12]) == pytest.approx(within - 2 * between, rel=1e-4)


def test_kernel_distance_is_unbiased():
    same = [
        fidelity.kernel_distance(*np.random.default_rng(seed).normal(size=(2, 100, 5)), num_subsets=10).value
        for seed in range(40)
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / 40**0.5
    assert fidelity.kernel_distance(REAL, GENERATED).value > 5 * np.std(same)


def test_precision_recall_density_coverage_are_as_defined():
    k = 3

    def radius(points, i):
        return np.sort(np.linalg.norm(points - points[i], axis=1))[k]  # the first is the point itself

    inside = np.array([[np.linalg.norm(r - g) <= radius(REAL, i) for g in GENERATED] for i, r in enumerate(REAL)])
    own = np.array([[np.linalg.norm(r - g) <= radius(GENERATED, j) for j, g in enumerate(GENERATED)] for r in REAL])
    radii = fidelity.neighbour_distances(REAL, k)
    found = {name: e.value for name, e in fidelity.precision_recall(REAL, GENERATED, radii, k).items()}
    expected = {
        "precision": inside.any(axis=0).mean(),
        "recall": own.any(axis=1).mean(),
        "density": inside.sum() / (k * len(GENERATED)),
        "coverage": inside.any(axis=1).mean(),
    }
    assert found == pytest.approx(expected)
    assert 0 < found["precision"] < 1
    assert 0 < found["recall"] < 1
    assert 0 < found["coverage"] < 1


def test_a_lost_mode_shows_in_recall_and_coverage_alone():
    modes = np.repeat(np.array([[0.0], [100.0]], np.float32), 50, axis=0)
    real = modes + RNG.normal(size=(100, 1)).astype(np.float32)
    generated = RNG.normal(size=(100, 1)).astype(np.float32)
    found = fidelity.precision_recall(real, generated, fidelity.neighbour_distances(real))
    assert found["precision"].value > 0.9
    assert found["recall"].value <= 0.5
    assert found["coverage"].value <= 0.5
