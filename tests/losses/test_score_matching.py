import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from sbm_jax.errors import SbmError
from sbm_jax.losses.score_matching import WEIGHTINGS, Draws, denoising_terms, draw, random_observed, stratified_times
from sbm_jax.sde import VP
from sbm_jax.types import Context

SHAPE = (4096, 3, 5)


def _context(batch, valid=None, present=None):
    valid = jnp.ones((3, 5), bool) if valid is None else valid
    return Context(jnp.zeros((batch, 3), bool), valid, present)


def test_observed_sets_of_incomplete_rows_have_the_same_law():
    """Of four modalities that a row has, as of four in all; of one nothing is observed."""
    present = jnp.array([[True, True, False, True, True], [False, False, True, False, False]])
    observed = np.asarray(random_observed(jax.random.key(0), 6000, 5, 0.2, jnp.repeat(present, 3000, axis=0)))
    four, one = observed[:3000], observed[3000:]
    assert not one.any()
    assert not four[:, 2].any()
    sizes = np.bincount(four.sum(axis=1), minlength=5) / 3000
    np.testing.assert_allclose(sizes, [0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3, 0.0], atol=0.03)
    np.testing.assert_allclose(four[:, [0, 1, 3, 4]].mean(axis=0), 0.4, atol=0.03)


def test_observed_sets_have_the_stated_law():
    observed = np.asarray(random_observed(jax.random.key(0), 20_000, 4, 0.2))
    sizes = np.bincount(observed.sum(axis=1), minlength=5) / len(observed)
    np.testing.assert_allclose(sizes, [0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3, 0.0], atol=0.015)
    singles = observed[observed.sum(axis=1) == 1]
    np.testing.assert_allclose(singles.mean(axis=0), 0.25, atol=0.02)


def test_always_none_is_the_papers_objective():
    assert not random_observed(jax.random.key(0), 100, 4, 1.0).any()


def test_times_are_uniform_and_stratified():
    time = np.sort(np.asarray(draw(jax.random.key(0), SHAPE, 0.2).time))
    np.testing.assert_allclose(time, (np.arange(4096) + 0.5) / 4096, atol=1 / 4096)


def test_the_time_of_each_row_is_uniform():
    """Whatever its place in the batch: rows that are sorted by class must not have the times of their class."""
    times = np.asarray(jax.vmap(lambda key: stratified_times(key, 8))(jax.random.split(jax.random.key(0), 4000)))
    for row in times.T:
        assert kstest(row, "uniform").pvalue > 1e-4


def test_network_sees_clean_observed_latents_and_their_time():
    z = jax.random.normal(jax.random.key(1), SHAPE)
    draws = draw(jax.random.key(2), SHAPE, 0.2)
    seen = {}

    def noise_fn(z_t, t, context):
        seen.update(z_t=z_t, t=t, observed=context.observed)
        return jnp.zeros_like(z_t)

    denoising_terms(noise_fn, VP(), z, _context(4096), draws, "noise")
    observed = np.asarray(draws.observed)
    np.testing.assert_array_equal(seen["observed"], observed)
    np.testing.assert_array_equal(np.asarray(seen["z_t"])[observed], np.asarray(z)[observed])
    assert not np.asarray(seen["t"])[observed].any()
    time = np.broadcast_to(np.asarray(draws.time)[:, None], observed.shape)
    np.testing.assert_array_equal(np.asarray(seen["t"])[~observed], time[~observed])


def test_terms_match_a_numpy_restatement():
    """A network that predicts zero has, per row, the mean over modalities of their mean squared noise."""
    z = jax.random.normal(jax.random.key(1), (2, 3, 5))
    valid = jnp.array([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    present = jnp.array([[True, True, True], [True, True, False]])
    draws = Draws(
        time=jnp.array([0.3, 0.8]),
        noise=jax.random.normal(jax.random.key(2), (2, 3, 5)),
        observed=jnp.array([[True, False, False], [False, False, True]]),
    )
    weighted, error = denoising_terms(
        lambda z_t, t, c: jnp.zeros_like(z_t), VP(), z, _context(2, valid, present), draws, "likelihood"
    )
    noise = np.asarray(draws.noise)
    expected = [
        (np.mean(noise[0, 1, :3] ** 2) + np.mean(noise[0, 2] ** 2)) / 2,
        (np.mean(noise[1, 0] ** 2) + np.mean(noise[1, 1, :3] ** 2)) / 2,
    ]
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    beta = 0.1 + 19.9 * np.array([0.3, 0.8])
    integral = np.array([0.3, 0.8]) * 0.1 + 0.5 * 19.9 * np.array([0.3, 0.8]) ** 2
    np.testing.assert_allclose(weighted, expected * beta / (1 - np.exp(-integral)), rtol=1e-5)


def test_absent_modalities_show_nothing_but_noise():
    z = jnp.full((2, 3, 5), 7.0)
    present = jnp.array([[True, False, True]] * 2)
    draws = draw(jax.random.key(0), (2, 3, 5), 0.0)
    seen = {}

    def noise_fn(z_t, t, context):
        seen["z_t"] = z_t
        return z_t

    denoising_terms(noise_fn, VP(), z, _context(2, present=present), draws, "noise")
    np.testing.assert_array_equal(seen["z_t"][:, 1], draws.noise[:, 1])


def test_velocity_weight_is_the_velocity_error():
    z = jax.random.normal(jax.random.key(1), (8, 3, 5))
    draws = draw(jax.random.key(2), (8, 3, 5), 1.0)
    guess = jax.random.normal(jax.random.key(3), (8, 3, 5))
    weighted, _ = denoising_terms(lambda *_: guess, VP(), z, _context(8), draws, "velocity")
    alpha, sigma = (x[:, None, None] for x in VP().marginal(draws.time))
    z_t = alpha * z + sigma * draws.noise
    velocity = alpha * draws.noise - sigma * z
    guessed = alpha * guess - sigma * (z_t - sigma * guess) / alpha
    np.testing.assert_allclose(weighted, jnp.mean((guessed - velocity) ** 2, axis=(1, 2)), rtol=1e-3)


def test_weightings_are_those_of_what_they_name():
    """Each is the weight of the squared error of ε̂ that makes it that of another quantity."""
    sde, t = VP(0.1, 20.0), jnp.array([0.05, 0.3, 0.6, 0.9])
    alpha, sigma = (np.asarray(value) for value in sde.marginal(t))
    of = {name: np.asarray(weight(sde, t)) for name, weight in WEIGHTINGS.items()}
    snr = (alpha / sigma) ** 2
    np.testing.assert_allclose(of["noise"], 1.0)
    np.testing.assert_allclose(of["data"], 1.0 / snr, rtol=1e-5)
    np.testing.assert_allclose(of["min_snr"], np.minimum(snr, 5.0) / snr, rtol=1e-5)
    np.testing.assert_allclose(of["unit"], 1.0 / sigma**2, rtol=1e-5)
    np.testing.assert_allclose(of["velocity"], 1.0 + 1.0 / snr, rtol=1e-5)
    slope = jax.vmap(jax.grad(lambda t: -2 * jnp.log(jnp.divide(*sde.marginal(t)))))(t)
    np.testing.assert_allclose(of["likelihood"], slope, rtol=1e-4)  # -d log SNR / dt


def test_unknown_weighting_is_named():
    draws = draw(jax.random.key(0), (2, 3, 5), 0.2)
    with pytest.raises(SbmError, match="Did you mean 'unit'"):
        denoising_terms(lambda z, t, c: z, VP(), jnp.zeros((2, 3, 5)), _context(2), draws, "units")


def test_rows_alone_are_shown_as_absent_and_carry_their_whole_loss():
    z = jax.random.normal(jax.random.key(1), SHAPE)
    draws = draw(jax.random.key(2), SHAPE, 0.2, probability_alone=0.3)
    alone = np.asarray(draws.alone)
    assert abs(alone.mean() - 0.3) < 0.03
    assert not np.asarray(draws.observed)[alone].any()
    seen = {}

    def noise_fn(z_t, t, context):
        seen["present"] = np.asarray(context.present)
        return jnp.zeros_like(z_t)

    _, error = denoising_terms(noise_fn, VP(), z, _context(4096), draws, "noise")
    np.testing.assert_array_equal(seen["present"], np.broadcast_to(~alone[:, None], (4096, 3)))
    np.testing.assert_allclose(error[alone], np.mean(np.asarray(draws.noise)[alone] ** 2, axis=(1, 2)), rtol=1e-5)
