import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.sampling.conditioning import CONDITIONINGS, batch_langevin, make_dynamics, row_langevin
from sbm_jax.sde import VP
from sbm_jax.types import Context

OBSERVED = jnp.array([[True, False, False], [False, True, True], [False, False, False]])
VALID = jnp.array([[True, True], [True, True], [True, False]])
CONTEXT = Context(OBSERVED, VALID)
GIVEN = np.asarray(OBSERVED)[:, :, None] & np.asarray(VALID)
Z, Z_OBSERVED = (jax.random.normal(jax.random.key(i), (3, 3, 2)) for i in (0, 1))
T = jnp.float32(0.4)


def _asked(name, key=0):
    """What the network is asked, and what the kernels get."""
    calls = []

    def score_fn(key, z, t):
        calls.append((z, t))
        return jnp.ones_like(z)

    dynamics = make_dynamics(CONDITIONINGS[name], score_fn, VP(), jnp.where(GIVEN, Z_OBSERVED, 0.0), CONTEXT)
    score = dynamics.score_fn(jax.random.key(key), Z, T)
    return calls[0], score, dynamics


@pytest.mark.parametrize("name", sorted(CONDITIONINGS))
def test_times_and_free_entries(name):
    (z, t), _, _ = _asked(name)
    expected = np.where(OBSERVED, 0.0, T) if name == "per_modality" else np.full((3, 3), T)
    np.testing.assert_array_equal(t, expected)
    np.testing.assert_array_equal(np.asarray(z)[~GIVEN], np.asarray(Z)[~GIVEN])


@pytest.mark.parametrize("name", ["per_modality", "clean"])
def test_observed_entries_are_shown_as_they_are(name):
    (z, _), _, _ = _asked(name)
    np.testing.assert_array_equal(np.asarray(z)[GIVEN], np.asarray(Z_OBSERVED)[GIVEN])


def test_replacement_noises_observed_entries_to_the_level_with_fresh_noise():
    (first, _), _, _ = _asked("replacement", key=0)
    (second, _), _, _ = _asked("replacement", key=1)
    assert np.all(np.asarray(first)[GIVEN] != np.asarray(second)[GIVEN])
    alpha, sigma = VP().marginal(T)
    noise = jax.random.normal(jax.random.key(0), (4, 3, 2))
    held = CONDITIONINGS["replacement"].hold_fn(noise, Z_OBSERVED[:1], alpha, sigma)
    np.testing.assert_allclose(held, alpha * Z_OBSERVED[:1] + sigma * noise, rtol=1e-6)


def test_reference_scales_observed_entries_once_per_step_and_lets_them_move():
    step = type("Step", (), dict(zip(("alpha", "sigma"), VP().marginal(T), strict=True)))
    (z, _), score, dynamics = _asked("reference")
    np.testing.assert_array_equal(z, Z)
    np.testing.assert_array_equal(score, np.broadcast_to(VALID, (3, 3, 2)))
    entered = np.asarray(dynamics.enter_fn(jax.random.key(0), Z, step))
    np.testing.assert_allclose(entered[GIVEN], (np.asarray(Z_OBSERVED) * (step.alpha + step.sigma))[GIVEN])
    np.testing.assert_array_equal(entered[~GIVEN], np.asarray(Z)[~GIVEN])


@pytest.mark.parametrize("name", ["per_modality", "clean", "replacement"])
def test_only_free_entries_have_score_and_noise(name):
    _, score, dynamics = _asked(name)
    np.testing.assert_array_equal(score, CONTEXT.free)
    np.testing.assert_array_equal(dynamics.noise_fn(jax.random.key(0)) != 0, CONTEXT.free)
    np.testing.assert_array_equal(dynamics.enter_fn(jax.random.key(0), Z, None), Z)


def test_single_time_networks_are_bound_without_an_observed_set():
    for name, conditioning in CONDITIONINGS.items():
        assert bool(jnp.any(conditioning.bind_context(CONTEXT).observed)) == (name == "per_modality")


def test_row_langevin_counts_free_entries_and_bounds_the_step():
    count = np.array([3, 2, 5])  # free entries of each row
    score = jnp.where(CONTEXT.free, jnp.array([3.0, 4.0, 0.1])[:, None, None], 0.0)
    ratio, gain = row_langevin(score, jnp.float32(1.25), CONTEXT.free)
    # Row 2 has a score below that of unit-variance data, whose root mean square is 1 / 1.25.
    np.testing.assert_allclose(np.ravel(ratio), [1 / 3, 1 / 4, 1.25], rtol=1e-6)
    expected = 1 + 2 / (1.25**2 * count * np.array([3.0, 4.0, np.inf]) ** 2)
    np.testing.assert_allclose(np.ravel(gain), expected, rtol=1e-6)


def test_row_langevin_of_a_row_without_free_entries_stands_still():
    ratio, gain = row_langevin(jnp.zeros((1, 2, 2)), jnp.float32(1.0), jnp.zeros((1, 2, 2), bool))
    np.testing.assert_array_equal(ratio, 0.0)
    np.testing.assert_array_equal(gain, 1.0)


def test_batch_langevin_is_a_ratio_of_means():
    noise, score = Z, jnp.arange(18.0).reshape(3, 3, 2)
    norms = [np.mean([np.linalg.norm(row) for row in np.asarray(x)]) for x in (noise, score)]
    ratio, gain = batch_langevin(noise, score)
    np.testing.assert_allclose(np.ravel(ratio), [norms[0] / norms[1]], rtol=1e-6)
    np.testing.assert_array_equal(gain, 1.0)
