import dataclasses
import functools

import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.config import build
from sbm_jax.errors import SbmError
from sbm_jax.sampling import SOLVERS, SamplerOptions, sample
from sbm_jax.sampling.conditioning import CONDITIONINGS, make_dynamics
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import make_steps
from sbm_jax.sampling.loop import automatic_unroll
from sbm_jax.sampling.noise import row_normal
from sbm_jax.sde import VE, VP, SubVP
from sbm_jax.types import Context

SDE = exact_laws.VP20
FIRST = np.array([True, False, False])
NONE = np.zeros(3, bool)


@pytest.fixture(scope="module")
def gaussian():
    return exact_laws.make_mixture(components=1, modalities=3, size=2)


@pytest.fixture(scope="module")
def mixture():
    return exact_laws.make_mixture(components=4, modalities=3, size=3, seed=1)


# MARK: Known answers

EXACT = {
    "euler_maruyama": SamplerOptions("euler_maruyama", num_steps=100, grid="uniform"),
    "predictor_corrector": SamplerOptions("predictor_corrector", num_steps=60, grid="uniform"),
    "ddim": SamplerOptions("ddim", num_steps=60),
    "heun": SamplerOptions("heun", num_steps=40, grid="karras"),
    "dpm_solver_pp_2m": SamplerOptions("dpm_solver_pp_2m", num_steps=20),
    "sde_dpm_solver_pp_2m": SamplerOptions("sde_dpm_solver_pp_2m", num_steps=20),
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_conditional_moments_of_a_gaussian(gaussian, name):
    rows = 3000
    z, _ = exact_laws.draw_exactly(gaussian, jax.random.key(3), 1)
    truth = gaussian.condition(z, FIRST)
    result = exact_laws.draw(gaussian, jax.random.key(4), jnp.repeat(z, rows, axis=0), FIRST, EXACT[name])
    assert not np.any(result.diverged)
    free = np.asarray(result.z)[:, 1:].reshape(rows, -1)
    deviation = np.sqrt(np.diag(truth.covariances[0]))
    np.testing.assert_allclose(free.mean(axis=0) / deviation, truth.means[0, 0].ravel() / deviation, atol=0.08)
    scale = deviation[:, None] * deviation
    np.testing.assert_allclose(np.cov(free.T) / scale, np.asarray(truth.covariances[0]) / scale, atol=0.12)


@pytest.mark.parametrize("sde", [SubVP(), VE(0.01, 20.0)], ids=["sub_vp", "ve"])
def test_unconditional_moments_of_a_gaussian_under_other_processes(gaussian, sde):
    result = exact_laws.draw(
        gaussian, jax.random.key(4), jnp.zeros((4000, 3, 2)), NONE, SamplerOptions(num_steps=40), sde
    )
    samples = np.asarray(result.z).reshape(4000, -1)
    np.testing.assert_allclose(samples.mean(axis=0), np.ravel(gaussian.means), atol=0.08)
    np.testing.assert_allclose(np.cov(samples.T), gaussian.covariances[0], atol=0.1)


def test_annealed_langevin_under_ve(gaussian):
    options = SamplerOptions("langevin", num_steps=30, snr=0.5, corrector_steps=10)
    result = exact_laws.draw(gaussian, jax.random.key(4), jnp.zeros((4000, 3, 2)), NONE, options, VE(0.1, 20.0))
    assert int(result.network_evaluations) == 300
    samples = np.asarray(result.z).reshape(4000, -1)
    np.testing.assert_allclose(samples.mean(axis=0), np.ravel(gaussian.means), atol=0.08)
    np.testing.assert_allclose(np.cov(samples.T), gaussian.covariances[0], atol=0.15)


def _mode_weight_error(mixture, observed, options, conditions=6, rows=2000):
    z, _ = exact_laws.draw_exactly(mixture, jax.random.key(5), conditions)
    truth = mixture.condition(z, observed).weights
    result = exact_laws.draw(mixture, jax.random.key(6), jnp.repeat(z, rows, axis=0), observed, options)
    weights = exact_laws.responsibilities(mixture, result.z).reshape(conditions, rows, -1).mean(axis=1)
    return 0.5 * float(jnp.mean(jnp.sum(jnp.abs(weights - truth), axis=1)))


@pytest.mark.parametrize("solver", ["dpm_solver_pp_2m", "sde_dpm_solver_pp_2m"])
def test_mode_weights_given_one_of_three_at_20_evaluations(mixture, solver):
    assert _mode_weight_error(mixture, FIRST, SamplerOptions(solver, num_steps=20)) <= 0.02


@pytest.mark.parametrize(("conditioning", "bias"), [("clean", 0.206), ("replacement", 0.261), ("reference", 0.197)])
def test_single_time_conditionings_are_biased(mixture, conditioning, bias):
    """By as much as when this was written; by chance, 300 rows of 6 conditions differ by less than 0.02."""
    options = SamplerOptions("predictor_corrector", num_steps=50, grid="uniform", conditioning=conditioning)
    assert _mode_weight_error(mixture, FIRST, options, rows=300) == pytest.approx(bias, abs=0.03)


def test_unconditional_mode_weights(mixture):
    options = SamplerOptions(num_steps=20)
    result = exact_laws.draw(mixture, jax.random.key(6), jnp.zeros((5000, 3, 3)), NONE, options)
    weights = exact_laws.responsibilities(mixture, result.z).mean(axis=0)
    assert 0.5 * float(jnp.sum(jnp.abs(weights - mixture.weights))) <= 0.02


def test_resampling_lessens_the_bias_of_replacement(mixture):
    once = SamplerOptions("sde_dpm_solver_pp_2m", num_steps=20, conditioning="replacement")
    often = dataclasses.replace(once, resampling=10)
    few, many = (_mode_weight_error(mixture, FIRST, options, rows=200) for options in (often, once))
    assert few < 0.7 * many  # 0.157 and 0.280, each within 0.02 by chance


# MARK: Observed sets, rows and padding


def test_all_observed_returns_the_data(mixture):
    z = jax.random.normal(jax.random.key(0), (3, 3, 3))
    result = exact_laws.draw(mixture, jax.random.key(1), z, np.ones(3, bool), SamplerOptions(num_steps=3))
    np.testing.assert_array_equal(result.z, z)
    assert not np.any(result.diverged)


def _linear_score(key, z, t):
    return -z * (1.0 + jnp.mean(t, axis=1)[:, None, None])


FIVE_STEPS = SamplerOptions(num_steps=5)


@functools.partial(jax.jit, static_argnames=("options", "transforms"))
def _draw_linear(key, z, observed, valid=None, options=FIVE_STEPS, transforms=()):
    valid = jnp.ones(z.shape[1:], bool) if valid is None else valid
    return sample(_linear_score, SDE, key, z, Context(observed, valid), options, transforms)


@pytest.mark.parametrize("conditioning", sorted(CONDITIONINGS))
def test_each_row_has_its_own_observed_set_and_unobserved_input_is_ignored(conditioning):
    observed = np.array([[True, False, False], [False, True, True], [False, False, False]])
    z = jax.random.normal(jax.random.key(0), (3, 3, 2))
    poisoned = jnp.where(observed[:, :, None], z, jnp.nan)
    solver = "euler_maruyama" if conditioning == "particles" else "predictor_corrector"
    options = SamplerOptions(solver, num_steps=15, grid="uniform", conditioning=conditioning)
    result = np.asarray(_draw_linear(jax.random.key(1), poisoned, observed, options=options).z)
    np.testing.assert_array_equal(result[observed], np.asarray(z)[observed])
    assert np.all(np.isfinite(result))
    assert np.all(result[~observed] != np.asarray(z)[~observed])


def test_none_observed_is_unconditional_whatever_the_input_and_conditioning():
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    first = _draw_linear(jax.random.key(1), z, NONE).z
    options = dataclasses.replace(FIVE_STEPS, conditioning="clean")
    np.testing.assert_array_equal(first, _draw_linear(jax.random.key(1), z * 0, NONE, options=options).z)
    assert np.any(first != _draw_linear(jax.random.key(2), z, NONE).z)


@pytest.mark.parametrize("solver", ["predictor_corrector", "sde_dpm_solver_pp_2m"])
def test_a_row_does_not_depend_on_its_companions(solver):
    options = SamplerOptions(solver, num_steps=15)
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    observed = np.array([[True, False, False], [False, True, True], [False, False, False], [True, True, False]])
    alone = _draw_linear(jax.random.key(1), z[:2], observed[:2], options=options).z
    together = _draw_linear(jax.random.key(1), z.at[2:].multiply(50.0), observed, options=options).z
    np.testing.assert_allclose(together[:2], alone, rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(together[2]) != np.asarray(together[0]))


@pytest.mark.parametrize("conditioning", ["per_modality", "replacement", "particles"])
def test_a_batch_may_be_sampled_in_chunks(conditioning):
    options = SamplerOptions(num_steps=5, conditioning=conditioning, num_particles=3)
    z = jax.random.normal(jax.random.key(0), (6, 3, 2))
    observed = jnp.array([[True, False, False], [False, True, True], [False, False, False]] * 2)
    valid = jnp.ones((3, 2), bool)

    def draw(key, z, observed, rows):
        return sample(lambda key, z, t: -z, SDE, key, z, Context(observed, valid, row_numbers=rows), options).z

    @functools.partial(jax.jit, static_argnums=0)
    def in_chunks(chunks):
        cut = (array.reshape(chunks, -1, *array.shape[1:]) for array in (z, observed, jnp.arange(6)))
        return jax.lax.map(lambda chunk: draw(jax.random.key(1), *chunk), tuple(cut)).reshape(z.shape)

    whole = jax.jit(draw)(jax.random.key(1), z, observed, None)
    assert np.all(np.isfinite(whole))
    for chunks in (2, 3):
        np.testing.assert_allclose(in_chunks(chunks), whole, rtol=1e-5, atol=1e-6)
    assert np.all(np.asarray(whole)[0, 1:] != np.asarray(whole)[3, 1:])


def test_padding_stays_zero():
    valid = jnp.array([[True, True], [True, False], [True, True]])
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    result = _draw_linear(jax.random.key(1), z, np.array([False, True, False]), valid).z
    np.testing.assert_array_equal(result[:, 1], z[:, 1] * valid[None, 1])
    result = _draw_linear(jax.random.key(1), z, NONE, valid).z
    np.testing.assert_array_equal(np.asarray(result) == 0, np.broadcast_to(~valid, (2, 3, 2)))


# MARK: The loop


def test_scan_equals_a_python_loop():
    options, sde = SamplerOptions("predictor_corrector", num_steps=6), VP(0.1, 5.0)
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    context = Context(jnp.broadcast_to(jnp.asarray(FIRST)[None], (2, 3)), jnp.ones((3, 2), bool))
    result = sample(_linear_score, sde, jax.random.key(1), z, context, options).z

    z_observed = jnp.where(context.observed[:, :, None], z, 0.0)
    dynamics = make_dynamics(CONDITIONINGS["per_modality"], _linear_score, sde, z_observed, context)
    solver = SOLVERS["predictor_corrector"](options.snr, 1)
    steps = make_steps(sde, GRIDS["log_snr"](sde, 6, 1.0, options.end_time))
    init_key, loop_key = jax.random.split(jax.random.key(1))
    state = solver.init(jnp.where(context.free, row_normal(init_key, z.shape), z))
    for i in range(6):
        step = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), steps)
        key = jax.random.fold_in(loop_key, i)
        predictor, corrector = solver.kernels
        state = predictor(jax.random.fold_in(key, 0), state, step.replace(final=jnp.array(False)), dynamics)
        state = corrector(jax.random.fold_in(key, 1), state, step, dynamics)
        state = state.replace(z=jnp.where(context.free, state.z, z))
    np.testing.assert_allclose(result, state.z, rtol=1e-5, atol=1e-5)


def test_unrolling_changes_nothing():
    z = jnp.zeros((2, 3, 2))
    results = [
        _draw_linear(jax.random.key(1), z, NONE, options=SamplerOptions(num_steps=6, unroll=n)).z for n in (1, 6)
    ]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_short_loops_are_unrolled_on_gpus_only():
    assert automatic_unroll(32, "gpu") == 32
    assert automatic_unroll(33, "gpu") == automatic_unroll(32, "cpu") == automatic_unroll(32, "tpu") == 1


def test_a_start_takes_the_place_of_the_prior():
    """From its own law, diffused to half the way, a sampler ends at that law; the prior is wrong there."""
    z = jax.random.normal(jax.random.key(0), (4000, 3, 2))
    target = 2.0 + 0.3 * z
    score = _shifted_score
    options = SamplerOptions(num_steps=10, start_time=0.25)
    given = jnp.asarray(FIRST)[None, :, None]
    context = Context(jnp.broadcast_to(jnp.asarray(FIRST)[None], (4000, 3)), jnp.ones((3, 2), bool))
    run = jax.jit(lambda start: sample(score, SDE, jax.random.key(1), z, context, options, start=start).z)
    result = np.asarray(run(jnp.where(given, jnp.nan, target)))
    np.testing.assert_array_equal(result[:, 0], z[:, 0])
    np.testing.assert_allclose(result[:, 1:].mean(axis=0), 2.0, atol=0.02)
    np.testing.assert_allclose(result[:, 1:].std(axis=0), 0.3, atol=0.03)
    assert np.all(run(None)[:, 1:].mean(axis=0) < 1.9)


def _shifted_score(key, z, t):
    """The score of N(2, 0.09) in every entry."""
    alpha, sigma = SDE.marginal(jnp.max(t))
    return (2.0 * alpha - z) / (0.09 * alpha**2 + sigma**2)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_network_evaluations_are_those_made(name):
    """A callback counts the evaluations that are executed."""
    calls = []

    def counted(key, z, t):
        jax.debug.callback(lambda: calls.append(1))
        return -z

    resampling = 1 if name == "langevin" else 2
    options = SamplerOptions(name, num_steps=12, grid="uniform", corrector_steps=2, resampling=resampling)
    context = Context(jnp.zeros((1, 2), bool), jnp.ones((2, 1), bool))
    result = sample(counted, SDE, jax.random.key(0), jnp.zeros((1, 2, 1)), context, options)
    jax.effects_barrier()
    assert int(result.network_evaluations) == len(calls)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary(num_steps):
        options = SamplerOptions(num_steps=num_steps)
        run = jax.jit(functools.partial(_draw_linear, options=options))
        compiled = run.lower(jax.random.key(0), jnp.zeros((256, 3, 8)), jnp.asarray(FIRST)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(500) - temporary(10) < 500 * 256  # one row of numbers per step would already be twice this


def test_transforms_are_applied_in_order_with_the_context():
    seen = []

    def plus(amount):
        def transform(score_fn, context):
            seen.append(context.observed.shape)
            return lambda key, z, t: 2 * score_fn(key, z, t) + amount

        return transform

    z = jnp.zeros((2, 3, 2))
    together = _draw_linear(jax.random.key(0), z, NONE, transforms=(plus(0.1), plus(0.2))).z
    by_hand = sample(
        lambda key, z, t: 2 * (2 * _linear_score(key, z, t) + 0.1) + 0.2,
        SDE,
        jax.random.key(0),
        z,
        Context(NONE, jnp.ones((3, 2), bool)),
        FIVE_STEPS,
    ).z
    np.testing.assert_allclose(together, by_hand, rtol=1e-6)
    assert seen == [(2, 3), (2, 3)]


# MARK: What can go wrong


@pytest.mark.parametrize("bad", [jnp.nan, 1e6])
def test_diverged_rows_are_reported_and_not_returned(bad):
    def score_fn(key, z, t):
        push = jnp.where(jnp.arange(3) == 1, bad, 0.0)[:, None, None]
        return -z + push * (t[:1, :1] > 0.9)[:, :, None]

    context = Context(jnp.broadcast_to(jnp.asarray(FIRST)[None], (3, 3)), jnp.ones((3, 2), bool))
    z = jnp.ones((3, 3, 2))
    # The first modality is given, so its time is 0: look at the time of the second.
    result = sample(lambda key, z, t: score_fn(key, z, t[:, 1:]), SDE, jax.random.key(0), z, context)
    np.testing.assert_array_equal(result.diverged, [False, True, False])
    assert np.all(np.isnan(result.z[1, 1:]))
    np.testing.assert_array_equal(result.z[1, 0], 1.0)
    assert np.all(np.isfinite(result.z[::2]))


@pytest.mark.parametrize("solver", ["euler_maruyama", "predictor_corrector", "corrector_predictor"])
def test_an_unstable_explicit_step_is_refused(solver):
    options = SamplerOptions(solver, num_steps=8, grid="uniform")
    with pytest.raises(SbmError, match=r"8 steps are too few.*β·dt = 2\.49.*unstable"):
        _draw_linear(jax.random.key(0), jnp.zeros((1, 3, 2)), NONE, options=options)
    result = sample(
        _linear_score,
        VP(0.1, 5.0),
        jax.random.key(0),
        jnp.zeros((1, 3, 2)),
        Context(NONE, jnp.ones((3, 2), bool)),
        options,
    )
    assert not np.any(result.diverged)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("solver", "dpm_solver_2m", "Did you mean 'dpm_solver_pp_2m'"),
        ("grid", "logsnr", "Did you mean 'log_snr'"),
        ("conditioning", "cleen", "Did you mean 'clean'"),
        ("num_steps", 0, "num_steps must be at least 1"),
        ("num_particles", 0, "num_particles must be at least 1"),
        ("unroll", -1, "unroll must be 0"),
        ("snr", 0.0, "snr must be positive"),
        ("end_time", 0.0, "end_time"),
        ("start_time", 1.5, "start_time"),
    ],
)
def test_bad_options_are_named(field, value, message):
    with pytest.raises(SbmError, match=message):
        build(SamplerOptions, {field: value}, "sampler")


@pytest.mark.parametrize(
    ("shape", "observed", "valid", "message"),
    [
        ((2,), NONE, np.ones((3, 2), bool), "rows, tokens"),
        ((2, 3, 2), np.zeros(2, bool), np.ones((3, 2), bool), "observed must be bool"),
        ((2, 3, 2), np.zeros(3), np.ones((3, 2), bool), "observed must be bool"),
        ((2, 3, 2), NONE, np.ones((2, 3), bool), "valid must be"),
        ((2, 3), NONE, np.ones((3, 2), bool), "valid must be"),
    ],
)
def test_bad_shapes_are_named(shape, observed, valid, message):
    with pytest.raises(SbmError, match=message):
        sample(_linear_score, SDE, jax.random.key(0), jnp.zeros(shape), Context(observed, valid))


@pytest.mark.parametrize(
    ("rows", "start", "message"),
    [(jnp.arange(3), None, r"row_numbers must be int \[2\]"), (None, jnp.zeros((2, 3, 1)), "start must be")],
)
def test_rows_and_starts_that_do_not_fit_are_named(rows, start, message):
    context = Context(NONE, jnp.ones((3, 2), bool), row_numbers=rows)
    with pytest.raises(SbmError, match=message):
        sample(_linear_score, SDE, jax.random.key(0), jnp.zeros((2, 3, 2)), context, start=start)


@pytest.mark.parametrize("owner", [(0, 1), (0, 2, 2), (1, 1, 2), (0, 1, 0)])
def test_owners_that_do_not_fit_are_named(owner):
    context = Context(np.zeros(max(owner) + 1, bool), jnp.ones((3, 2), bool), owner=owner)
    with pytest.raises(SbmError, match="owner must give"):
        sample(_linear_score, SDE, jax.random.key(0), jnp.zeros((2, 3, 2)), context)


def test_resampling_a_solver_that_repeats_is_refused():
    options = SamplerOptions("langevin", corrector_steps=3, resampling=2)
    with pytest.raises(SbmError, match="set resampling to 1"):
        _draw_linear(jax.random.key(0), jnp.zeros((1, 3, 2)), NONE, options=options)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("score_fn", None),
        ("sde", "vp"),
        ("sde", None),
        ("key", 0),
        ("key", jax.random.split(jax.random.key(0))),
        ("context", {}),
        ("options", {"num_steps": 2}),
        ("transforms", None),
        ("transforms", [3]),
        ("transforms", lambda score_fn, context: score_fn),
    ],
)
def test_an_argument_of_another_kind_is_named(argument, value):
    context = Context(jnp.zeros((2, 3), bool), jnp.ones((3, 4), bool))
    given = {
        "score_fn": lambda key, z, t: jnp.zeros_like(z),
        "sde": VP(),
        "key": jax.random.key(0),
        "z_observed": jnp.zeros((2, 3, 4)),
        "context": context,
        **{argument: value},
    }
    with pytest.raises(SbmError, match=f"sample: {argument} is"):
        sample(**given)


def test_a_score_of_another_shape_is_refused():
    context = Context(jnp.zeros((2, 3), bool), jnp.ones((3, 4), bool))
    with pytest.raises(SbmError, match=r"score_fn returns the shape \[2, 1, 4\]"):
        sample(lambda key, z, t: z[:, :1], VP(), jax.random.key(0), jnp.zeros((2, 3, 4)), context)
