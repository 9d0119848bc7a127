import functools

import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sampling import SOLVERS, SamplerOptions, bind_context, sample
from sbm_jax.sampling.conditioning import CONDITIONINGS, make_dynamics
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import State, ancestral, make_steps
from sbm_jax.sampling.particles import choose, filtered, repeat_rows, start
from sbm_jax.types import Context

SDE = exact_laws.VP20
FIRST = np.array([True, False, False])
VALID = jnp.ones((3, 2), bool)


def _options(num_particles, num_steps=30, solver="sde_dpm_solver_pp_2m"):
    return SamplerOptions(solver, num_steps, conditioning="particles", num_particles=num_particles)


# MARK: Known answers


@pytest.mark.parametrize("solver", ["sde_dpm_solver_pp_2m", "euler_maruyama"])
def test_conditional_moments_of_a_gaussian_with_a_joint_score(solver):
    gaussian, rows = exact_laws.make_mixture(components=1, modalities=3, size=2), 1000
    z, _ = exact_laws.draw_exactly(gaussian, jax.random.key(3), 1)
    truth = gaussian.condition(z, FIRST)
    result = exact_laws.draw(gaussian, jax.random.key(4), jnp.repeat(z, rows, axis=0), FIRST, _options(32, 40, solver))
    free = np.asarray(result.z)[:, 1:].reshape(rows, -1)
    deviation = np.sqrt(np.diag(truth.covariances[0]))
    np.testing.assert_allclose(free.mean(axis=0) / deviation, truth.means[0, 0].ravel() / deviation, atol=0.15)
    scale = deviation[:, None] * deviation
    np.testing.assert_allclose(np.cov(free.T) / scale, truth.covariances[0] / scale, atol=0.2)


@pytest.mark.slow
def test_mode_weights_become_right_as_particles_grow():
    mixture, conditions, rows = exact_laws.make_mixture(components=4, modalities=3, size=3, seed=1), 6, 300
    z, _ = exact_laws.draw_exactly(mixture, jax.random.key(5), conditions)
    truth = mixture.condition(z, FIRST).weights
    errors = []
    for num_particles in (1, 4, 16):
        options = _options(num_particles, 20)
        result = exact_laws.draw(mixture, jax.random.key(6), jnp.repeat(z, rows, axis=0), FIRST, options)
        weights = exact_laws.responsibilities(mixture, result.z).reshape(conditions, rows, -1).mean(axis=1)
        errors.append(0.5 * np.mean(np.sum(np.abs(weights - truth), axis=1)))
    # 0.28, 0.076 and 0.034; what chance adds, up to 0.02, shows in the last.
    assert errors[0] > 3 * errors[1]
    assert errors[1] > 1.7 * errors[2]


# MARK: Rows


def _score(key, z, t):
    return -z


@functools.partial(jax.jit, static_argnames="options")
def _draw(z, observed, options):
    return sample(_score, SDE, jax.random.key(1), z, Context(observed, VALID), options)


def test_rows_with_all_or_nothing_observed():
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    result = _draw(z, jnp.array([[True] * 3, [False] * 3]), _options(4, 6))
    np.testing.assert_array_equal(result.z[0], z[0])
    assert np.all(np.isfinite(result.z[1]))
    assert np.all(result.z[1] != z[1])
    assert not np.any(result.diverged)
    assert int(result.network_evaluations) == 6 * 4


def test_a_row_does_not_depend_on_its_companions():
    z = jax.random.normal(jax.random.key(0), (3, 3, 2))
    observed = jnp.array([[True, False, False], [False, True, True], [False, True, False]])
    alone = _draw(z[:1], observed[:1], _options(4, 6)).z
    together = _draw(z.at[1:].multiply(1.5), observed, _options(4, 6)).z
    assert np.all(np.isfinite(together))
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


def test_the_network_is_bound_to_the_particles_and_knows_no_observed_set():
    context = Context(jnp.array([[True, False], [False, True]]), jnp.ones((2, 1), bool), embedding=jnp.eye(2))
    bound = bind_context(_options(3), context)
    np.testing.assert_array_equal(bound.observed, np.zeros((6, 2), bool))
    np.testing.assert_array_equal(bound.embedding, np.repeat(np.eye(2), 3, axis=0))
    np.testing.assert_array_equal(bound.row_numbers, np.arange(6))
    np.testing.assert_array_equal(
        repeat_rows(context.replace(row_numbers=jnp.array([5, 2])), 2).row_numbers, [10, 11, 4, 5]
    )


# MARK: One step

CONTEXT = Context(jnp.array([[True, False]]), jnp.ones((2, 1), bool))
STEPS = make_steps(SDE, GRIDS["log_snr"](SDE, 10))
STEP = jax.tree.map(lambda values: jnp.asarray(values)[4], STEPS)


def _move(data, free=0.5, log_weights=0.0):
    """Take one Euler-Maruyama step of one row: `data` [K, 2] is what each particle predicts as clean data."""
    z = jnp.stack([jnp.full(len(data), 0.3), jnp.full(len(data), free)], axis=1)[:, :, None]

    def score_fn(key, z, t):
        return (STEP.alpha * jnp.asarray(data)[:, :, None] - z) / STEP.sigma**2

    solver = filtered(SOLVERS["euler_maruyama"](0.16, 1), len(data), jnp.ones((1, 2, 1)), CONTEXT, 100.0)
    conditioning = CONDITIONINGS["particles"]
    bound = conditioning.bind_context(repeat_rows(CONTEXT, len(data)))
    dynamics = make_dynamics(conditioning, score_fn, SDE, z, bound)
    state = solver.init(z)
    state = state.replace(log_weights=state.log_weights + log_weights)
    return solver.kernels[0](jax.random.key(0), state, STEP, dynamics)


def test_particles_are_weighted_by_the_density_of_the_next_point_of_the_path():
    data = np.array([[0.9, 0.0], [1.0, 0.0], [1.1, 0.0]], np.float32)
    state = _move(data, log_weights=jnp.array([[0.0, 0.1, 0.2]]))
    path = np.asarray(state.z)[:, 0, 0]
    assert np.ptp(path) == 0  # one path for all particles
    rate, dt = float(STEP.diffusion_squared), float(STEP.dt)
    score = (float(STEP.alpha) * data[:, 0] - 0.3) / float(STEP.sigma) ** 2
    mean = 0.3 + dt * (rate * score - float(STEP.drift) * 0.3)
    expected = np.array([0.0, 0.1, 0.2]) - (path - mean) ** 2 / (2 * rate * dt)
    np.testing.assert_allclose(np.diff(state.log_weights[0]), np.diff(expected), rtol=1e-4, atol=1e-5)


def test_uneven_particles_are_drawn_again_and_even_ones_are_kept():
    data = np.stack([np.ones(4), np.arange(4.0)], axis=1)
    kept = _move(data, log_weights=jnp.log(jnp.array([[0.3, 0.3, 0.2, 0.2]])))
    assert np.ptp(np.asarray(kept.log_weights)) > 0
    drawn = _move(data, free=0.0, log_weights=jnp.log(jnp.array([[1e-9, 1.0, 1e-9, 1e-9]])))
    np.testing.assert_array_equal(drawn.log_weights, 0.0)
    free = np.asarray(drawn.z)[:, 1, 0]
    scale = float(jnp.sqrt(STEP.diffusion_squared * STEP.dt))
    noise = np.asarray(_move(np.ones((4, 2)), free=0.0).z)[:, 1, 0]
    np.testing.assert_allclose(free, noise, atol=1e-5)  # all descend from the particle that predicts 1
    assert np.ptp(noise) > 0.1 * scale  # and go their own ways


def test_lost_particles_are_replaced_and_weights_stay_numbers():
    state = _move(np.array([[1.0, np.nan], [1.0, 1e9], [1.0, 0.0], [1.0, np.inf]]))
    np.testing.assert_array_equal(state.log_weights, 0.0)  # drawn again, as one of four is left
    assert np.all(np.isfinite(state.z))
    z, lost = choose(jax.random.key(0), state, CONTEXT)
    assert np.all(np.isfinite(z))
    assert not lost[0]


def test_rows_that_lost_all_particles_are_reported():
    lost = _move(np.full((4, 2), np.nan))
    assert np.all(np.isneginf(lost.log_weights))
    assert choose(jax.random.key(0), lost, CONTEXT)[1][0]

    def score(key, z, t):
        return jnp.where(jnp.arange(8)[:, None, None] < 4, jnp.nan, -z)

    z = jnp.ones((2, 3, 2))
    context = Context(jnp.array([[True, False, False]] * 2), VALID)
    result = sample(score, SDE, jax.random.key(0), z, context, _options(4, 5))
    np.testing.assert_array_equal(result.diverged, [True, False])
    assert np.all(np.isnan(result.z[0, 1:]))
    assert np.all(np.isfinite(result.z[1]))


def test_the_final_particle_is_drawn_by_weight():
    log_weights = jnp.broadcast_to(jnp.log(jnp.array([0.1, 0.0, 0.9]))[None], (4000, 3))
    state = State(jnp.broadcast_to(jnp.arange(3.0), (4000, 3)).reshape(-1, 1, 1), log_weights=log_weights)
    chosen, lost = choose(jax.random.key(0), state, Context(jnp.zeros((4000, 1), bool), jnp.ones((1, 1), bool)))
    np.testing.assert_allclose(np.bincount(np.ravel(chosen).astype(int)) / 4000, [0.1, 0.0, 0.9], atol=0.02)
    assert not np.any(lost)


def test_the_path_has_the_marginals_of_the_forward_process():
    rows = 20_000
    context = Context(jnp.ones((rows, 1), bool), jnp.ones((1, 1), bool))
    z_observed = jnp.full((rows, 1, 1), 2.0)
    first, second = (jax.tree.map(lambda values, i=i: jnp.asarray(values)[i], STEPS) for i in (5, 6))
    z = start(jax.random.key(0), jnp.zeros((rows, 1, 1)), z_observed, context, first)
    mean, scale = ancestral(z, z_observed, first)
    after = mean + scale * jax.random.normal(jax.random.key(1), z.shape)
    for values, step in ((z, first), (after, second)):
        np.testing.assert_allclose(np.mean(values), 2.0 * step.alpha, atol=0.02)
        np.testing.assert_allclose(np.std(values), step.sigma, rtol=0.02)


# MARK: What cannot work


@pytest.mark.parametrize(
    "options", [{"solver": "dpm_solver_pp_2m"}, {"solver": "predictor_corrector"}, {"resampling": 2}]
)
def test_steps_that_are_not_one_gaussian_draw_are_refused(options):
    with pytest.raises(SbmError, match="one Gaussian draw"):
        sample(
            _score,
            SDE,
            jax.random.key(0),
            jnp.zeros((1, 3, 2)),
            Context(jnp.zeros((1, 3), bool), VALID),
            SamplerOptions(num_steps=20, conditioning="particles", num_particles=2, **options),
        )


def test_a_start_and_a_shared_observed_set_are_refused():
    context = Context(jnp.zeros((1, 3), bool), VALID)
    z = jnp.zeros((1, 3, 2))
    with pytest.raises(SbmError, match="leave `start` out"):
        sample(_score, SDE, jax.random.key(0), z, context, _options(2), start=z)
    with pytest.raises(SbmError, match="broadcast it to the rows"):
        bind_context(_options(2), context.replace(observed=jnp.zeros(3, bool)))
