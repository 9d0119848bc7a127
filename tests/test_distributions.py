import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.distributions import LIKELIHOODS, POSTERIORS, gaussian_kl, product_of_experts, standard_normal_kl


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


def test_counts_have_the_poisson_law_of_their_rate():
    counts, rate = jnp.arange(60.0), 7.5
    log_prob = LIKELIHOODS["poisson"].log_prob(counts, jnp.full(60, jnp.log(rate)), 1.0)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose((counts * jnp.exp(log_prob)).sum(), rate, rtol=1e-5)
    np.testing.assert_allclose(log_prob[2], 2 * np.log(rate) - rate - np.log(2), rtol=1e-5)
    np.testing.assert_allclose(LIKELIHOODS["poisson"].mean(jnp.log(rate)), rate, rtol=1e-5)


def test_kl_matches_monte_carlo():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.3, -0.7]])
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(jax.random.key(0), (400_000, 2))
    gaussian = LIKELIHOODS["gaussian"].log_prob
    ratio = [
        gaussian(z[:, d], mean[0, d], float(jnp.exp(log_variance[0, d] / 2))) - gaussian(z[:, d], 0.0, 1.0)
        for d in range(2)
    ]
    np.testing.assert_allclose(standard_normal_kl(mean, log_variance)[0], sum(r.mean() for r in ratio), rtol=1e-2)


def test_kl_to_a_standard_normal_is_the_case_of_the_general_one():
    mean, log_variance, other = jax.random.normal(jax.random.key(0), (3, 4, 5))
    np.testing.assert_allclose(
        gaussian_kl(mean, log_variance, jnp.zeros((4, 5)), jnp.zeros((4, 5))),
        standard_normal_kl(mean, log_variance),
        rtol=1e-5,
    )
    np.testing.assert_allclose(gaussian_kl(mean, other, mean, other), np.zeros(4), atol=1e-6)
    variance, prior = np.exp(np.asarray(log_variance, np.float64)), np.exp(np.asarray(other, np.float64))
    expected = 0.5 * (np.log(prior / variance) + (variance + np.asarray(mean) ** 2) / prior - 1).sum(axis=1)
    np.testing.assert_allclose(gaussian_kl(mean, log_variance, jnp.zeros((4, 5)), other), expected, rtol=1e-4)


@pytest.mark.parametrize("prior", [False, True])
def test_a_product_of_experts_is_the_normalised_product_of_their_densities(prior):
    mean, log_variance = np.array([0.4, -1.0, 7.0]), np.array([0.2, -0.5, 0.0])
    z = np.linspace(-8, 8, 20_001)
    density = np.exp(-0.5 * z**2) if prior else np.ones_like(z)
    for m in range(2):  # the third is no member
        density = density * np.exp(-0.5 * (z - mean[m]) ** 2 / np.exp(log_variance[m]))
    density /= np.trapezoid(density, z)
    expected = np.trapezoid(z * density, z)
    spread = np.trapezoid((z - expected) ** 2 * density, z)
    found, found_log = product_of_experts(
        jnp.array(mean)[:, None], jnp.array(log_variance)[:, None], jnp.array([True, True, False]), prior=prior
    )
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found_log), [spread], rtol=1e-5)


def test_a_product_of_no_expert_is_the_prior():
    mean, log_variance = product_of_experts(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.zeros(3, bool))
    np.testing.assert_allclose(mean, np.zeros(2), atol=1e-7)
    np.testing.assert_allclose(log_variance, np.zeros(2), atol=1e-7)


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_draw_from_their_densities(name):
    family = POSTERIORS[name]
    raw = jnp.array([0.3, -0.8])
    scale, mean = family.scale(raw), jnp.array([1.0, -2.0])
    shape = (200_000, 2)
    if family.noise == "uniform":
        noise = jax.random.uniform(jax.random.key(0), shape, minval=-1.0 + 1e-6, maxval=1.0)
    else:
        noise = jax.random.normal(jax.random.key(0), shape)
    z = np.asarray(family.sample(mean[None], scale[None], noise))
    grid = np.linspace(-30, 30, 60_001)[:, None]
    density = np.exp(family.log_prob(jnp.asarray(grid), mean[None], scale[None]))
    np.testing.assert_allclose(np.trapezoid(density, grid, axis=0), np.ones(2), rtol=1e-3)
    for moment in (1, 2):
        expected = np.trapezoid(grid**moment * density, grid, axis=0)
        np.testing.assert_allclose((z**moment).mean(axis=0), expected, rtol=0.03)


def test_softmax_scales_have_mean_one():
    scale = POSTERIORS["laplace_with_softmax"].scale(jax.random.normal(jax.random.key(0), (3, 8)))
    np.testing.assert_allclose(scale.mean(axis=-1), np.ones(3), rtol=1e-4)
