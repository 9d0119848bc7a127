"""Fréchet distances of Gaussians, whose distance is known."""

import numpy as np
import pytest

from sbm_jax.evaluation import frechet


def gaussians(dimension, seed=0):
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(dimension, dimension)) / dimension**0.5 + np.eye(dimension) for _ in range(2)]
    means = [rng.normal(size=dimension) * 0.3 for _ in range(2)]
    return [(mean, root @ root.T) for mean, root in zip(means, roots, strict=True)]


def exact(first, second):
    """The distance by the plain formula, with the eigenvalues of Σ Σ_r."""
    (mean, covariance), (mean_r, covariance_r) = first, second
    root = np.sqrt(np.linalg.eigvals(covariance @ covariance_r).real.clip(0)).sum()
    return np.sum((mean - mean_r) ** 2) + np.trace(covariance + covariance_r) - 2 * root


def draw(gaussian, count, seed):
    mean, covariance = gaussian
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, count).astype(np.float32)


def reference(gaussian):
    mean, covariance = gaussian
    return frechet.gaussian(frechet.Moments(2, mean, covariance))  # a scatter of two rows is their covariance


@pytest.mark.parametrize("count", [30, 400], ids=["fewer rows than entries", "more rows than entries"])
def test_distance_is_that_of_the_moments(count):
    first, second = gaussians(50)
    features = draw(first, count, 1)
    own = (features.mean(axis=0), np.cov(features.astype(np.float64), rowvar=False))
    assert frechet.distance(features, reference(second)) == pytest.approx(exact(own, second), rel=1e-6)


def test_moments_of_batches_are_those_of_all():
    features = draw(gaussians(7)[0], 101, 0)
    moments = frechet.moments(features, batch_size=25)
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moments.covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)


def test_distance_of_equal_data_is_zero():
    features = draw(gaussians(7)[0], 200, 0)
    assert frechet.distance(features, frechet.gaussian(frechet.moments(features))) == pytest.approx(0.0, abs=1e-6)


def test_extrapolation_takes_away_the_bias_of_few_samples():
    first, second = gaussians(32)
    truth = exact(first, second)
    measured = [frechet.measure(draw(first, 600, seed), reference(second)) for seed in range(20)]
    plain, extrapolated = (
        np.array([m[name].value for m in measured]) - truth for name in ("frechet", "frechet_infinity")
    )
    assert plain.mean() > 0.4  # 600 samples of 32 entries: by far too large
    assert abs(extrapolated.mean()) < 0.4 * plain.mean()


@pytest.mark.parametrize("name", ["frechet", "frechet_infinity"])
def test_the_error_is_the_spread_over_fresh_samples(name):
    first, second = gaussians(16)
    measured = [frechet.measure(draw(first, 500, seed), reference(second))[name] for seed in range(40)]
    spread = np.std([m.value for m in measured], ddof=1)
    assert np.mean([m.std for m in measured]) == pytest.approx(spread, rel=0.3)
    assert all(m.n == 500 for m in measured)


def test_few_samples_have_an_error_and_no_extrapolation():
    first, second = gaussians(60)
    measured = [frechet.measure(draw(first, 40, seed), reference(second)) for seed in range(40)]
    assert measured[0].keys() == {"frechet"}
    spread = np.std([m["frechet"].value for m in measured], ddof=1)
    assert np.mean([m["frechet"].std for m in measured]) == pytest.approx(spread, rel=0.4)
