import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import make_steps
from sbm_jax.sde import VE, VP, Cosine, SubVP

SDES = [VP(), VP(0.1, 5.0), SubVP(), VE(), Cosine()]


def _log_snr(sde, times):
    alpha, sigma = (np.asarray(value, np.float64) for value in sde.marginal(jnp.asarray(times)))
    return np.log(alpha / sigma)


@pytest.mark.parametrize("name", sorted(GRIDS))
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_grids_decrease_from_start_to_end(name, sde):
    times = GRIDS[name](sde, 25, 0.9, 2e-3)
    assert times.dtype == np.float32
    assert times.shape == (26,)
    assert times[0] == np.float32(0.9)
    assert times[-1] == np.float32(2e-3)
    assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_each_grid_is_uniform_in_its_own_variable(sde):
    uniform, log_snr, karras = (GRIDS[name](sde, 12, 1.0, 1e-3) for name in ("uniform", "log_snr", "karras"))
    np.testing.assert_allclose(np.diff(uniform), -0.999 / 12, rtol=1e-5)
    values = _log_snr(sde, log_snr)
    np.testing.assert_allclose(np.diff(values), (values[-1] - values[0]) / 12, rtol=1e-3)
    roots = np.exp(-_log_snr(sde, karras) / 7)
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 12, rtol=1e-3)


def test_grids_are_static_inside_jit():
    def traced(x):
        assert isinstance(GRIDS["log_snr"](VP(), 5, 1.0, 1e-3), np.ndarray)
        return x

    jax.jit(traced)(0.0)


def test_a_grid_that_float32_can_not_hold_is_refused():
    with pytest.raises(SbmError, match="fewer steps"):
        GRIDS["uniform"](VP(), 1000, 1.0, 0.99999)


def test_steps_hold_the_constants_of_exponential_integrators():
    times = GRIDS["log_snr"](VP(), 20, 1.0, 1e-3)
    steps = make_steps(VP(), times)
    h = np.diff(_log_snr(VP(), times))
    np.testing.assert_allclose(steps.data_weight, -np.asarray(steps.alpha_next) * np.expm1(-h), rtol=1e-5)
    np.testing.assert_allclose(steps.extrapolation[1:], h[1:] / (2 * h[:-1]), rtol=1e-5)
    assert steps.extrapolation[0] == 0
    assert list(np.flatnonzero(steps.final)) == [19]


def test_the_last_of_few_steps_is_of_first_order():
    assert make_steps(VP(), GRIDS["log_snr"](VP(), 14, 1.0, 1e-3)).extrapolation[-1] == 0
    assert make_steps(VP(), GRIDS["log_snr"](VP(), 15, 1.0, 1e-3)).extrapolation[-1] > 0


def test_repeated_steps_rewind_and_do_not_extrapolate_within_an_interval():
    steps = make_steps(VP(), GRIDS["uniform"](VP(), 3, 1.0, 1e-3), repeats=2)
    assert list(steps.rewind) == [False, True] * 3
    assert list(np.asarray(steps.extrapolation) > 0) == [False, False, True, False, True, False]
    np.testing.assert_array_equal(steps.t[::2], steps.t[1::2])


def test_blocks_are_taken_again_from_their_end():
    times = GRIDS["uniform"](VP(), 4, 1.0, 1e-3)
    steps = make_steps(VP(), times, repeats=2, block=2)
    np.testing.assert_allclose(steps.t, times[[0, 1, 0, 1, 2, 3, 2, 3]])
    assert list(steps.rewind) == [False, False, True, False] * 2
    alpha, sigma = VP().marginal(jnp.asarray(times))
    np.testing.assert_allclose(steps.alpha_rewind[[2, 6]], alpha[jnp.array([2, 4])], rtol=1e-6)
    np.testing.assert_allclose(steps.sigma_rewind[[2, 6]], sigma[jnp.array([2, 4])], rtol=1e-6)
    assert steps.extrapolation[2] == steps.extrapolation[6] == 0
    with pytest.raises(SbmError, match="must divide num_steps"):
        make_steps(VP(), times, repeats=2, block=3)
