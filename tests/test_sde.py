import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sde import VE, VP, Cosine, SDEConfig, SubVP, make_sde

PROCESSES = [VP(0.1, 20.0), VP(0.1, 5.0), SubVP(0.1, 20.0), VE(0.01, 50.0), Cosine()]


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_marginals_solve_the_moment_equations(sde):
    """dα/dt = f α and dσ²/dt = 2 f σ² + g², by automatic differentiation."""
    for time in (0.01, 0.3, 0.9):
        t = jnp.float32(time)
        alpha, sigma = sde.marginal(t)
        alpha_slope = jax.grad(lambda t: sde.marginal(t)[0])(t)
        variance_slope = jax.grad(lambda t: sde.marginal(t)[1] ** 2)(t)
        np.testing.assert_allclose(alpha_slope, sde.drift(t) * alpha, rtol=1e-4, atol=1e-6)
        expected = 2 * sde.drift(t) * sigma**2 + sde.diffusion_squared(t)
        np.testing.assert_allclose(variance_slope, expected, rtol=1e-3)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_time_of_half_log_snr_inverts_the_marginal(sde):
    t = jnp.linspace(0.02, 1.0, 17)
    alpha, sigma = sde.marginal(t)
    np.testing.assert_allclose(sde.time_of_half_log_snr(jnp.log(alpha / sigma)), t, rtol=2e-3)


@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_processes_that_keep_the_variance_start_clean(name):
    alpha, sigma = make_sde(SDEConfig(name)).marginal(jnp.array([0.0, 0.4, 1.0]))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)
    assert (alpha[0], sigma[0]) == (1.0, 0.0)
    assert alpha[-1] < 0.01


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SDEConfig(name="vpp"), "Did you mean 'vp'"),
        (SDEConfig(beta_min=5.0, beta_max=1.0), "0 < min < max"),
        (SDEConfig(name="ve", sigma_min=0.0), "0 < min < max"),
    ],
)
def test_bad_processes_are_refused(config, message):
    with pytest.raises(SbmError, match=message):
        make_sde(config)
