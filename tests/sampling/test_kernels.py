"""Each kernel against its formula in NumPy, with a score and noise that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.sampling import kernels
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import Dynamics, State, make_steps
from sbm_jax.sampling.resampling import renoise
from sbm_jax.sde import VE, VP, SubVP

SHAPE = (3, 2, 4)
RNG = np.random.default_rng(0)
Z, PREVIOUS, NOISE = (RNG.normal(size=SHAPE).astype(np.float32) for _ in range(3))
RATIO = np.array([0.5, 1.0, 2.0], np.float32)[:, None, None]
GAIN = np.array([1.0, 1.2, 1.4], np.float32)[:, None, None]
SDES = [VP(), SubVP(), VE()]


def _score(z, t):
    return -(1.5 + t) * z + 0.3


DYNAMICS = Dynamics(
    score_fn=lambda key, z, t: _score(z, t),
    noise_fn=lambda key: jnp.asarray(NOISE),
    langevin_fn=lambda noise, score, scale: (jnp.asarray(RATIO), jnp.asarray(GAIN)),
    enter_fn=lambda key, z, step: z,
    moving=jnp.ones(SHAPE, bool),
)


def _step(sde, index, num_steps=20, repeats=1):
    steps = make_steps(sde, GRIDS["log_snr"](sde, num_steps, 1.0, 1e-3), repeats)
    return jax.tree.map(lambda x: jnp.asarray(x)[index], steps)


def _run(kernel, step):
    return kernel(jax.random.key(0), State(jnp.asarray(Z), jnp.asarray(PREVIOUS)), step, DYNAMICS)


def _constants(sde, step):
    """t, s, and α, σ, λ at both, in float64 from the process itself."""
    t, s = float(step.t), float(step.t_next)
    levels = [[float(x) for x in sde.marginal(jnp.float32(time))] for time in (t, s)]
    return (
        t,
        s,
        *levels[0],
        *levels[1],
        np.log(levels[0][0] / levels[0][1]),
        np.log(levels[1][0] / levels[1][1]),
    )


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("index", [7, 19])
def test_euler_maruyama(sde, index):
    step = _step(sde, index)
    t, s = float(step.t), float(step.t_next)
    f, g2 = float(sde.drift(jnp.float32(t))), float(sde.diffusion_squared(jnp.float32(t)))
    expected = Z - (f * Z - g2 * _score(Z, t)) * (t - s)
    if index < 19:
        expected = expected + np.sqrt(g2 * (t - s)) * NOISE
    np.testing.assert_allclose(_run(kernels.euler_maruyama, step).z, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("at_next", [True, False])
def test_langevin_corrector(at_next):
    step = _step(VP(), 7)
    t, s = float(step.t), float(step.t_next)
    score = _score(Z, s if at_next else t)
    size = 2 * (1 - float(VP().beta(t)) * (t - s)) * (0.2 * RATIO) ** 2
    expected = Z + size * GAIN * score + np.sqrt(2 * size) * NOISE
    actual = _run(kernels.langevin_corrector(0.2, at_next), step).z
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_langevin_corrector_rests_where_its_step_would_be_negative():
    step = _step(VP(), 0).replace(dt=jnp.float32(0.09))
    np.testing.assert_array_equal(_run(kernels.langevin_corrector(0.2, True), step).z, Z)


def test_annealed_langevin():
    step = _step(VE(), 7)
    size = (0.2 * float(VE().marginal(step.t_next)[1])) ** 2
    expected = Z + size * _score(Z, float(step.t_next)) + np.sqrt(2 * size) * NOISE
    np.testing.assert_allclose(_run(kernels.annealed_langevin(0.2), step).z, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ddim(sde):
    step = _step(sde, 7)
    t, _, alpha, sigma, alpha_next, sigma_next, *_ = _constants(sde, step)
    epsilon = -sigma * _score(Z, t)
    expected = alpha_next * (Z - sigma * epsilon) / alpha + sigma_next * epsilon
    np.testing.assert_allclose(_run(kernels.ddim, step).z, expected, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_heun(sde):
    step = _step(sde, 7)
    t, s, alpha, sigma, alpha_next, sigma_next, *_ = _constants(sde, step)
    x, width, width_next = Z / alpha, sigma / alpha, sigma_next / alpha_next
    denoised = (Z + sigma**2 * _score(Z, t)) / alpha
    slope = (x - denoised) / width
    euler = x + (width_next - width) * slope
    denoised = euler + sigma_next**2 * _score(alpha_next * euler, s) / alpha_next
    expected = alpha_next * (x + (width_next - width) * 0.5 * (slope + (euler - denoised) / width_next))
    np.testing.assert_allclose(_run(kernels.heun, step).z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("index", [0, 7, 19])
def test_dpm_solver_pp_2m(sde, stochastic, index):
    step = _step(sde, index)
    t, _, alpha, sigma, alpha_next, sigma_next, log_snr, log_snr_next = _constants(sde, step)
    h = log_snr_next - log_snr
    data = (Z + sigma**2 * _score(Z, t)) / alpha
    extrapolated = data
    if index > 0:
        r = (log_snr - _constants(sde, _step(sde, index - 1))[6]) / h
        extrapolated = (1 + 1 / (2 * r)) * data - PREVIOUS / (2 * r)
    if stochastic:
        variance = 1 - np.exp(-2 * h)
        noise = NOISE if index < 19 else 0.0
        expected = sigma_next / sigma * np.exp(-h) * Z + alpha_next * variance * extrapolated
        expected = expected + sigma_next * np.sqrt(variance) * noise
    else:
        expected = sigma_next / sigma * Z + alpha_next * (1 - np.exp(-h)) * extrapolated
    state = _run(kernels.sde_dpm_solver_pp_2m if stochastic else kernels.dpm_solver_pp_2m, step)
    np.testing.assert_allclose(state.z, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.previous, data, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_renoise_undoes_the_change_of_marginals(sde):
    forward, rewind = (_step(sde, index, repeats=2) for index in (14, 15))
    np.testing.assert_array_equal(_run(renoise, forward).z, Z)
    _, _, alpha, sigma, alpha_next, sigma_next, *_ = _constants(sde, rewind)
    ratio = alpha / alpha_next
    expected = ratio * Z + np.sqrt(sigma**2 - (ratio * sigma_next) ** 2) * NOISE
    np.testing.assert_allclose(_run(renoise, rewind).z, expected, rtol=1e-4, atol=1e-4)


def test_deterministic_solvers_carry_a_gaussian_along_its_closed_form_flow():
    """For data N(μ, v) the flow is z_s = α_s μ + sqrt((α_s² v + σ_s²) / (α_t² v + σ_t²)) (z_t - α_t μ)."""
    mean, variance, sde = 0.7, 0.3, VP()

    def score(key, z, t):
        alpha, sigma = sde.marginal(t)
        return -(z - alpha * mean) / (alpha**2 * variance + sigma**2)

    dynamics = DYNAMICS._replace(score_fn=score)
    times = GRIDS["log_snr"](sde, 200, 1.0, 1e-3)
    steps = jax.tree.map(jnp.asarray, make_steps(sde, times))
    start, end = (sde.marginal(jnp.float32(time)) for time in (1.0, 1e-3))
    spread = [float(alpha**2 * variance + sigma**2) for alpha, sigma in (start, end)]
    expected = float(end[0]) * mean + np.sqrt(spread[1] / spread[0]) * (Z - float(start[0]) * mean)
    for kernel, tolerance in ((kernels.ddim, 0.03), (kernels.heun, 1e-3), (kernels.dpm_solver_pp_2m, 1e-3)):

        def advance(state, step, kernel=kernel):
            return kernel(jax.random.key(0), state, step, dynamics), None

        state, _ = jax.lax.scan(advance, State(jnp.asarray(Z), jnp.zeros(SHAPE)), steps)
        np.testing.assert_allclose(state.z, expected, atol=tolerance)
