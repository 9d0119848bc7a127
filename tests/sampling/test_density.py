"""Log densities along the probability flow, against a mixture whose density is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.mixtures import GaussianMixture
from sbm_jax.sampling.density import log_density
from sbm_jax.sde import VE, VP
from sbm_jax.types import Context

SHAPE = (2, 3)
END = 1e-3


def _mixture():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(3, 6, 6)) * 0.3
    covariances = factors @ factors.transpose(0, 2, 1) + 0.2 * np.eye(6)
    mixture = GaussianMixture(np.array([0.5, 0.3, 0.2]), rng.normal(size=(3, *SHAPE)), covariances)
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), mixture.standardized())


MIXTURE = _mixture()


def _numpy_log_density(z, sde):
    """The mixture with the noise of the end time added, restated."""
    alpha, sigma = (float(value) for value in sde.marginal(jnp.float32(END)))
    z = np.asarray(z, np.float64).reshape(len(z), -1)
    total = np.full(len(z), -np.inf)
    for weight, mean, covariance in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.covariances, strict=True):
        covariance = np.asarray(covariance, np.float64) + (sigma / alpha) ** 2 * np.eye(6)
        difference = z - np.asarray(mean, np.float64).ravel()
        distance = np.einsum("bi,ij,bj->b", difference, np.linalg.inv(covariance), difference)
        term = np.log(weight) - 0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])
        total = np.logaddexp(total, term)
    return total


def _context(batch, observed=(False, False)):
    return Context(jnp.broadcast_to(jnp.array(observed), (batch, 2)), jnp.ones(SHAPE, bool))


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_exact_trace_gives_the_density(sde):
    z, _ = MIXTURE.sample(jax.random.key(0), 16)
    context = _context(16)
    score_fn = MIXTURE.score_fn(sde, context, shared_times=True)
    run = jax.jit(lambda z: log_density(score_fn, sde, jax.random.key(1), z, context, 100, END, "exact"))
    np.testing.assert_allclose(run(z), _numpy_log_density(z, sde), atol=0.05)


def test_hutchinson_is_right_on_average():
    sde, copies = VP(), 400
    z = jnp.repeat(MIXTURE.sample(jax.random.key(0), 4)[0], copies, axis=0)
    context = _context(len(z))
    score_fn = MIXTURE.score_fn(sde, context, shared_times=True)
    found = jax.jit(lambda z: log_density(score_fn, sde, jax.random.key(1), z, context, 100, END))(z)
    found = np.asarray(found).reshape(4, copies)
    error = found.std(axis=1) / copies**0.5
    np.testing.assert_array_less(np.abs(found.mean(axis=1) - _numpy_log_density(z[::copies], sde)), 4 * error + 0.05)


def test_observed_modalities_are_conditioned_on():
    """log p(free | observed) is log p(both) - log p(observed) of a mixture."""
    sde = VP()
    z, _ = MIXTURE.sample(jax.random.key(0), 8)
    context = _context(8, (True, False))
    score_fn = MIXTURE.score_fn(sde, context, shared_times=True)
    found = log_density(score_fn, sde, jax.random.key(1), z, context, 100, END, "exact")
    alone = GaussianMixture(MIXTURE.weights, MIXTURE.means[:, :1], MIXTURE.covariances[:, :3, :3])
    expected = MIXTURE.log_density(z) - alone.log_density(z[:, :1])
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_log_density_of_a_mixture():
    z, _ = MIXTURE.sample(jax.random.key(3), 8)
    sharp = VP(beta_min=1e-9, beta_max=2e-9)  # next to no noise at the end time
    np.testing.assert_allclose(MIXTURE.log_density(z), _numpy_log_density(z, sharp), rtol=1e-3, atol=1e-3)


def test_unknown_traces_are_refused():
    z = jnp.zeros((1, *SHAPE))
    with pytest.raises(SbmError, match="trace"):
        log_density(lambda key, z, t: z, VP(), jax.random.key(0), z, _context(1), trace="sliced")
