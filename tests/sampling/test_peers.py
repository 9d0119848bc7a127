"""DPM-Solver++ 2M against diffusers', on the same grid, network and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.sampling import kernels
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import Dynamics, State, make_steps
from sbm_jax.sde import VP

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")]

RNG = np.random.default_rng(0)
WEIGHT = (RNG.normal(size=(6, 6)) / 3).astype(np.float32)
Z = RNG.normal(size=(4, 6)).astype(np.float32)


def _epsilon(z, t, tanh):
    """A smooth network of z and t, the same in NumPy, JAX and PyTorch."""
    return 0.8 * z + 0.3 * tanh(z @ WEIGHT + t)


def _ours(num_steps, grid, stochastic, noises):
    sde = VP()
    steps = make_steps(sde, GRIDS[grid](sde, num_steps, 1.0, 1e-3))
    kernel = kernels.sde_dpm_solver_pp_2m if stochastic else kernels.dpm_solver_pp_2m
    state = State(jnp.asarray(Z), jnp.zeros_like(Z))
    for i, noise in enumerate(noises):
        step = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), steps).replace(final=jnp.array(False))
        dynamics = Dynamics(
            score_fn=lambda key, z, t: -_epsilon(z, t, jnp.tanh) / sde.marginal(t)[1],
            noise_fn=lambda key, noise=noise: jnp.asarray(noise),
            langevin_fn=lambda noise, score, scale: (scale, scale),
            enter_fn=lambda key, z, step: z,
            moving=jnp.ones(Z.shape, bool),
        )
        state = kernel(jax.random.key(0), state, step, dynamics)
    return np.asarray(state.z), steps


@pytest.mark.parametrize("num_steps", [8, 20])
@pytest.mark.parametrize("grid", ["log_snr", "karras", "uniform"])
@pytest.mark.parametrize("stochastic", [False, True], ids=["ode", "sde"])
def test_dpm_solver_pp_2m_agrees_with_diffusers(num_steps, grid, stochastic):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    noises = np.random.default_rng(1).normal(size=(num_steps, *Z.shape)).astype(np.float32)
    ours, steps = _ours(num_steps, grid, stochastic, noises)

    # One training time per grid point; the levels themselves are then set to the grid's, in full precision.
    scheduler = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=num_steps + 1,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(timesteps=list(range(num_steps, 0, -1)))
    levels = np.append(steps.sigma / steps.alpha, steps.sigma_next[-1] / steps.alpha_next[-1])
    scheduler.sigmas = torch.from_numpy(levels.astype(np.float32))
    weight, z = torch.from_numpy(WEIGHT), torch.from_numpy(Z)
    for i, timestep in enumerate(scheduler.timesteps):
        epsilon = 0.8 * z + 0.3 * torch.tanh(z @ weight + float(steps.t[i]))
        z = scheduler.step(epsilon, timestep, z, variance_noise=torch.from_numpy(noises[i])).prev_sample
    assert np.max(np.abs(ours - z.numpy())) <= 1e-5 * np.max(np.abs(ours))
