import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sde import VP
from sbm_jax.types import Context


@pytest.fixture(scope="module")
def mixture():
    return exact_laws.make_mixture(components=3, modalities=3, size=2)


def _log_density(mixture, sde, z, t):
    """The diffused log density of one row, in NumPy and float64."""
    alpha, sigma = (np.repeat(np.asarray(value, np.float64), 2) for value in sde.marginal(jnp.asarray(t)))
    total = []
    for weight, mean, covariance in zip(
        *(np.asarray(x, np.float64) for x in (mixture.weights, mixture.means, mixture.covariances)),
        strict=True,
    ):
        diffused = np.diag(alpha) @ covariance @ np.diag(alpha) + np.diag(sigma**2)
        difference = z.reshape(-1) - alpha * mean.reshape(-1)
        quadratic = difference @ np.linalg.solve(diffused, difference)
        total.append(np.log(weight) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * diffused)[1]))
    return np.logaddexp.reduce(total)


def test_score_is_the_gradient_of_the_diffused_log_density_with_a_time_per_modality(mixture):
    sde, rng = VP(), np.random.default_rng(1)
    z = rng.normal(size=(2, 3, 2))
    t = np.array([[0.0, 0.3, 0.3], [0.7, 0.2, 0.01]])
    score = np.asarray(mixture.score(sde, jnp.asarray(z, jnp.float32), jnp.asarray(t, jnp.float32)))
    for row in range(2):
        for entry in np.ndindex(3, 2):
            shift = np.zeros((3, 2))
            shift[entry] = 1e-5
            rise = _log_density(mixture, sde, z[row] + shift, t[row]) - _log_density(
                mixture, sde, z[row] - shift, t[row]
            )
            np.testing.assert_allclose(score[row][entry], rise / 2e-5, rtol=2e-3, atol=2e-3)


def test_shared_times_and_masks(mixture):
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    observed = jnp.broadcast_to(jnp.array([[True, False, False]]), (4, 3))
    context = Context(observed, jnp.ones((3, 2), bool))
    t = jnp.where(observed, 0.0, 0.4)
    per_row = mixture.score_fn(VP(), context)(jax.random.key(1), z, t)
    shared = mixture.score_fn(VP(), context, shared_times=True)(jax.random.key(1), z, t)
    np.testing.assert_allclose(per_row, shared, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(per_row[:, 0], 0.0)
    np.testing.assert_allclose(per_row[:, 1:], mixture.score(VP(), z, t)[:, 1:])


def test_conditional_is_the_ratio_of_densities(mixture):
    observed = np.array([False, True, False])
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    law = exact_laws.condition(mixture, jnp.where(observed[None, :, None], z, jnp.nan), tuple(observed))
    # log p(z_u | z_o) and log p(z_u, z_o) differ by a constant in z_u.
    constants = []
    for free in np.random.default_rng(0).normal(size=(3, 2, 2)):
        point = np.array(z[0])
        point[[0, 2]] = free
        terms = []
        for weight, mean, covariance in zip(law.weights[0], law.means[0], law.covariances, strict=True):
            difference = (free - np.asarray(mean)).reshape(-1)
            quadratic = difference @ np.linalg.solve(covariance, difference)
            terms.append(np.log(weight) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * np.asarray(covariance))[1]))
        constants.append(np.logaddexp.reduce(terms) - _log_density(mixture, VP(), point, np.zeros(3)))
    np.testing.assert_allclose(constants, constants[0], atol=1e-3)
    np.testing.assert_allclose(np.sum(law.weights, axis=1), 1.0, rtol=1e-5)


def test_samples_have_the_moments_of_the_mixture(mixture):
    samples, components = exact_laws.draw_exactly(mixture, jax.random.key(0), 20_000)
    np.testing.assert_allclose(np.bincount(components) / 20_000, mixture.weights, atol=0.02)
    np.testing.assert_allclose(np.mean(samples, axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(np.var(samples, axis=0), 1.0, atol=0.04)


def test_conditioning_on_everything_is_refused(mixture):
    with pytest.raises(SbmError, match="leave one out"):
        mixture.condition(jnp.zeros((1, 3, 2)), np.ones(3, bool))
