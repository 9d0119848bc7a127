import functools

import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sampling import SamplerOptions, sample
from sbm_jax.sampling.starts import gaussian_conditional
from sbm_jax.types import Context

OBSERVED = np.array([[True, False, False], [False, True, True], [False, False, False], [True, True, True]])


@pytest.fixture(scope="module")
def gaussian():
    return exact_laws.make_mixture(components=1, modalities=3, size=2)


def test_moments_are_those_of_the_exact_conditional_of_each_row(gaussian):
    rows = 3000
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    context = Context(jnp.repeat(OBSERVED, rows, axis=0), jnp.ones((3, 2), bool))
    poisoned = jnp.where(context.observed[:, :, None], jnp.repeat(z, rows, axis=0), jnp.nan)
    draw = jax.jit(gaussian_conditional)(
        jax.random.key(1), poisoned, context, gaussian.means[0], gaussian.covariances[0]
    )
    draws = np.asarray(draw).reshape(4, rows, 3, 2)
    given = np.broadcast_to(OBSERVED[:, None, :, None], draws.shape)
    np.testing.assert_array_equal(draws[given], np.broadcast_to(z[:, None], draws.shape)[given])
    for i in range(3):
        truth = gaussian.condition(z[i : i + 1], OBSERVED[i])
        free = draws[i][:, ~OBSERVED[i]].reshape(rows, -1)
        deviation = np.sqrt(np.diag(truth.covariances[0]))
        np.testing.assert_allclose(free.mean(axis=0) / deviation, truth.means[0, 0].ravel() / deviation, atol=0.08)
        scale = deviation[:, None] * deviation
        np.testing.assert_allclose(np.cov(free.T) / scale, truth.covariances[0] / scale, atol=0.1)


def test_padding_is_zero_and_its_covariance_is_not_read(gaussian):
    valid = jnp.array([[True, True], [True, False], [True, True]])
    entries = np.ravel(valid)
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    context = Context(jnp.asarray(OBSERVED), valid)
    clean = jnp.where(entries[:, None] & entries, gaussian.covariances[0], 0.0)
    poisoned = jnp.where(entries[:, None] & entries, clean, 3.0)
    draws = [gaussian_conditional(jax.random.key(1), z, context, gaussian.means[0], c) for c in (clean, poisoned)]
    np.testing.assert_allclose(*draws, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(draws[0])[~np.broadcast_to(valid, z.shape) & ~OBSERVED[:, :, None]], 0.0)


def test_a_covariance_of_few_latents_will_do():
    latents = np.random.default_rng(0).normal(size=(4, 6))
    context = Context(jnp.asarray(OBSERVED), jnp.ones((3, 2), bool))
    z = jnp.asarray(latents.reshape(4, 3, 2), jnp.float32)
    covariance = jnp.asarray(np.cov(latents.T), jnp.float32)
    assert np.all(np.isfinite(gaussian_conditional(jax.random.key(1), z, context, jnp.zeros((3, 2)), covariance)))


def test_a_row_does_not_depend_on_its_chunk(gaussian):
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    context = Context(jnp.asarray(OBSERVED), jnp.ones((3, 2), bool))
    law = (gaussian.means[0], gaussian.covariances[0])
    whole = gaussian_conditional(jax.random.key(1), z, context, *law)
    chunk = Context(context.observed[2:], context.valid, row_numbers=jnp.array([2, 3]))
    np.testing.assert_allclose(gaussian_conditional(jax.random.key(1), z[2:], chunk, *law), whole[2:], rtol=1e-5)


def test_shapes_that_do_not_fit_are_named():
    context = Context(jnp.asarray(OBSERVED), jnp.ones((3, 2), bool))
    with pytest.raises(SbmError, match=r"covariance \[6, 6\], not \[3, 2\] and \[5, 5\]"):
        gaussian_conditional(jax.random.key(0), jnp.zeros((4, 3, 2)), context, jnp.zeros((3, 2)), jnp.eye(5))


def test_five_evaluations_from_the_gaussian_start_beat_five_from_the_prior():
    mixture, conditions, rows = exact_laws.make_mixture(components=4, modalities=3, size=3, seed=1), 6, 1000
    first = np.array([True, False, False])
    z, _ = exact_laws.draw_exactly(mixture, jax.random.key(5), conditions)
    truth = mixture.condition(z, first).weights
    mean, covariance = (jnp.asarray(moment, jnp.float32) for moment in mixture.moments())
    repeated = jnp.repeat(z, rows, axis=0)
    context = Context(jnp.broadcast_to(first, (conditions * rows, 3)), jnp.ones((3, 3), bool))

    @functools.partial(jax.jit, static_argnums=1)
    def error(start, start_time):
        options = SamplerOptions("dpm_solver_pp_2m", num_steps=5, start_time=start_time)
        score_fn = mixture.score_fn(exact_laws.VP20, context, shared_times=True)
        result = sample(score_fn, exact_laws.VP20, jax.random.key(6), repeated, context, options, start=start)
        weights = mixture.responsibilities(result.z).reshape(conditions, rows, -1).mean(axis=1)
        return 0.5 * jnp.mean(jnp.sum(jnp.abs(weights - truth), axis=1))

    start = gaussian_conditional(jax.random.key(7), repeated, context, mean, covariance)
    assert error(start, 0.707) < 0.8 * error(None, 1.0)  # α = 0.08 at t = 0.707
