"""The same sampling loop in data space: images [B, H, W, C], a single modality that owns all rows of pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.losses.score_matching import denoising_terms, draw
from sbm_jax.parameterization import Parameterization, scaled
from sbm_jax.sampling import SamplerOptions, sample
from sbm_jax.sampling.density import log_density
from sbm_jax.sde import VP
from sbm_jax.types import Context

SHAPE = (3, 4, 2)
SDE = VP(0.1, 20.0)


def _law(seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(24, 3))
    covariance = factors @ factors.T / 4 + 0.2 * np.eye(24)
    return rng.normal(size=24).astype(np.float32), covariance.astype(np.float32)


def _context(rows):
    return Context(jnp.zeros((rows, 1), bool), jnp.ones(SHAPE, bool), owner=(0,) * SHAPE[0])


def _network(mean, covariance):
    """What a perfect network with the prediction "data" returns, given z_t / s: E[x | z_t]."""

    def predict(given, alpha, sigma):
        z = (given * jnp.sqrt(alpha**2 + sigma**2)).reshape(len(given), -1)
        spread = alpha**2 * covariance + sigma**2 * jnp.eye(24)
        gain = alpha * jnp.linalg.solve(spread, covariance).T
        return (mean[None] + (z - alpha * mean[None]) @ gain.T).reshape(given.shape)

    return predict


def _score_fn(mean, covariance):
    predict, meaning = _network(mean, covariance), Parameterization("data")

    def score_fn(key, z, t):
        del key
        alpha, sigma = SDE.marginal(t.max())
        given = scaled(z, alpha, sigma)
        return meaning.score(predict(given, alpha, sigma), given, alpha, sigma)

    return score_fn


@pytest.mark.parametrize(
    "options",
    [
        SamplerOptions(num_steps=40),
        SamplerOptions("predictor_corrector", num_steps=100, end_time=1e-3),
        SamplerOptions("heun", num_steps=20),
    ],
    ids=lambda options: options.solver,
)
def test_images_have_the_moments_of_their_law(options):
    mean, covariance = _law()
    rows = 6000
    draws = jax.jit(
        lambda key: sample(_score_fn(mean, covariance), SDE, key, jnp.zeros((rows, *SHAPE)), _context(rows), options)
    )(jax.random.key(0))
    assert draws.z.shape == (rows, *SHAPE)
    assert not np.any(draws.diverged)
    flat = np.asarray(draws.z).reshape(rows, -1)
    np.testing.assert_allclose(flat.mean(axis=0), mean, atol=0.08)
    error = np.abs(np.cov(flat.T) - covariance).max()
    assert error < 0.12 * np.abs(covariance).max()


def test_padding_of_images_stays_zero_and_rows_are_independent():
    mean, covariance = _law()
    valid = jnp.ones(SHAPE, bool).at[:, 3].set(False)
    run = functools.partial(sample, _score_fn(mean, covariance), SDE, jax.random.key(0))
    options = SamplerOptions(num_steps=3)
    three = run(jnp.zeros((3, *SHAPE)), _context(3).replace(valid=valid), options).z
    one = run(jnp.zeros((1, *SHAPE)), _context(1).replace(valid=valid), options).z
    assert not np.asarray(three)[:, :, 3].any()
    np.testing.assert_allclose(three[:1], one, rtol=1e-5, atol=1e-6)


def test_the_density_of_images_is_that_of_their_law():
    mean, covariance = np.zeros(24, np.float32), _law()[1]
    covariance /= np.diag(covariance).mean()
    x = np.random.default_rng(1).multivariate_normal(mean, covariance, 3).astype(np.float32)
    z = jnp.asarray(x.reshape(3, *SHAPE))
    found = jax.jit(
        lambda z: log_density(_score_fn(mean, covariance), SDE, jax.random.key(0), z, _context(3), 100, trace="exact")
    )(z)
    sigma = float(SDE.marginal(jnp.float32(3e-3))[1])
    spread = covariance + sigma**2 * np.eye(24)
    expected = -0.5 * (np.einsum("bi,ij,bj->b", x, np.linalg.inv(spread), x) + np.linalg.slogdet(2 * np.pi * spread)[1])
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_the_loss_of_images_is_a_mean_over_their_entries():
    context = _context(8)
    x = jax.random.normal(jax.random.key(0), (8, *SHAPE))
    draws = draw(jax.random.key(1), x.shape, 1.0, owner=context.owner)
    assert draws.observed.shape == (8, 1)
    wrong = jnp.zeros(SHAPE).at[1, 2, 0].set(2.0)[None]
    _, error = denoising_terms(lambda z, t, context: draws.noise + wrong, SDE, x, context, draws, "noise")
    np.testing.assert_allclose(error, 4.0 / 24, rtol=1e-5)
