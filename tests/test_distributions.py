import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.distributions import LIKELIHOODS, standard_normal_kl


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_continuous_likelihoods_integrate_to_one(name):
    x = jnp.linspace(-40.0, 40.0, 200_001)
    density = jnp.exp(LIKELIHOODS[name].log_prob(x, jnp.full_like(x, 0.3), 0.75))
    np.testing.assert_allclose(np.trapezoid(density, x), 1.0, rtol=1e-3)


def test_gaussian_of_scale_root_half_is_squared_error_plus_a_constant():
    x, output = jax.random.normal(jax.random.key(0), (2, 7))
    log_prob = LIKELIHOODS["gaussian"].log_prob(x, output, 0.5**0.5)
    np.testing.assert_allclose(-log_prob - 0.5 * np.log(np.pi), np.square(x - output), rtol=1e-5, atol=1e-6)


def test_discrete_likelihoods_match_their_tables():
    logit = jnp.array([-2.0, 0.0, 3.0])
    probability = 1 / (1 + np.exp(-np.asarray(logit)))
    bernoulli = LIKELIHOODS["bernoulli"].log_prob
    np.testing.assert_allclose(bernoulli(jnp.ones(3), logit, 1.0), np.log(probability), rtol=1e-5)
    np.testing.assert_allclose(bernoulli(jnp.zeros(3), logit, 1.0), np.log1p(-probability), rtol=1e-5)
    one_hot = jnp.eye(3)
    expected = np.asarray(logit) - np.log(np.exp(np.asarray(logit)).sum())
    categorical = LIKELIHOODS["categorical"].log_prob(one_hot, jnp.tile(logit, (3, 1)), 1.0)
    np.testing.assert_allclose(categorical, expected, rtol=1e-5)


def test_kl_matches_monte_carlo():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.3, -0.7]])
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(jax.random.key(0), (400_000, 2))
    gaussian = LIKELIHOODS["gaussian"].log_prob
    ratio = [
        gaussian(z[:, d], mean[0, d], float(jnp.exp(log_variance[0, d] / 2))) - gaussian(z[:, d], 0.0, 1.0)
        for d in range(2)
    ]
    np.testing.assert_allclose(standard_normal_kl(mean, log_variance)[0], sum(r.mean() for r in ratio), rtol=1e-2)
