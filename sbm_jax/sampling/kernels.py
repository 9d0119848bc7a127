"""Kernels: single moves of a solver, `(key, state, step, dynamics) -> state`.

Kernels are pure functions, independent of networks and modalities: they work on arrays [B, ...] (latents, or the pixels
of a diffusion decoder) and get scores and noise from `Dynamics`. `Step` holds the precomputed constants of a step.

Notation: a step goes from t to s < t; D = (z + σ_t² ∇log p_t(z)) / α_t predicts the clean data;
λ = log(α / σ); h = λ_s - λ_t.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.sde import SDE
from sbm_jax.types import Array, Key


class Step(flax.struct.PyTreeNode):
    """Constants of the step from time t to t_next < t; float32 scalars in a kernel, [N] arrays as scan input.

    Attributes:
      index: int32, position in the scan.
      t: time before the step.
      t_next: time after the step.
      dt: t - t_next, positive.
      alpha: α_t.
      sigma: σ_t.
      alpha_next: α at t_next.
      sigma_next: σ at t_next.
      drift: f(t).
      diffusion_squared: g(t)².
      data_weight: α_s - σ_s α_t / σ_t = α_s (1 - exp(-h)), with h = λ_s - λ_t: weight of D in an exponential
        step.
      extrapolation: h / (2 h_previous), weight of D - D_previous in a second-order multistep; 0 for a
        first-order step.
      rewind: bool, whether this step restarts a block of intervals from a state at the end of the block.
      alpha_rewind: α at the end of the block.
      sigma_rewind: σ at the end of the block.
      final: bool, whether to return the mean instead of a draw.
    """

    index: Array | np.ndarray
    t: Array
    t_next: Array
    dt: Array
    alpha: Array
    sigma: Array
    alpha_next: Array
    sigma_next: Array
    drift: Array
    diffusion_squared: Array
    data_weight: Array
    extrapolation: Array
    rewind: Array
    alpha_rewind: Array
    sigma_rewind: Array
    final: Array


# With fewer steps than this, the last step of a multistep solver is first order (`lower_order_final` in other
# libraries): with few steps, each one is long, and no later step corrects the error of the last extrapolation.
_LOWER_ORDER_FINAL_BELOW = 15


def make_steps(sde: SDE, times: np.ndarray, repeats: int = 1, block: int = 1) -> Step:
    """Precompute the constants of all steps in float64.

    Args:
      sde: the process.
      times: decreasing times [N + 1].
      repeats: number of consecutive passes through each block (resampling, Langevin).
      block: intervals per block, a divisor of N.

    Returns:
      A `Step` of NumPy arrays [N * repeats].

    Raises:
      SbmError: if `block` does not divide N.
    """
    if (len(times) - 1) % block:
        raise SbmError(f"sampler: resampling_length ({block}) must divide num_steps ({len(times) - 1}).")
    with jax.ensure_compile_time_eval():
        jnp_times = jnp.asarray(times)
        coefficients = (*sde.marginal(jnp_times), sde.drift(jnp_times), sde.diffusion_squared(jnp_times))
    alpha, sigma, drift, diffusion_squared = (np.asarray(value, np.float64) for value in coefficients)
    times = times.astype(np.float64)
    before = np.repeat(np.arange(len(times) - 1).reshape(-1, 1, block), repeats, axis=1).ravel()
    after, block_end = before + 1, (before // block + 1) * block
    position = np.arange(len(before))
    half_log_snr = np.log(alpha) - np.log(sigma)
    length = half_log_snr[after] - half_log_snr[before]
    previous_length = np.diff(half_log_snr[before], prepend=half_log_snr[before[0]])
    second_order = previous_length > 0
    if len(times) - 1 < _LOWER_ORDER_FINAL_BELOW:
        second_order[-1] = False
    values = {
        "t": times[before],
        "t_next": times[after],
        "dt": times[before] - times[after],
        "alpha": alpha[before],
        "sigma": sigma[before],
        "alpha_next": alpha[after],
        "sigma_next": sigma[after],
        "alpha_rewind": alpha[block_end],
        "sigma_rewind": sigma[block_end],
        "drift": drift[before],
        "diffusion_squared": diffusion_squared[before],
        "data_weight": alpha[after] - sigma[after] * alpha[before] / sigma[before],
        "extrapolation": second_order * length / (2 * np.where(second_order, previous_length, 1.0)),
    }
    return Step(
        index=position.astype(np.int32),
        rewind=(before % block == 0) & (position % (repeats * block) > 0),
        final=position == position[-1],
        **{name: value.astype(np.float32) for name, value in values.items()},
    )


class Dynamics(NamedTuple):
    """The distribution being sampled, as a solver sees it.

    Attributes:
      score_fn: `(key, z [B, ...], t scalar) -> [B, ...]`, the score; 0 at fixed entries.
      noise_fn: `key -> [B, ...]`, standard normal noise; 0 at fixed entries.
      langevin_fn: `(noise, score, scale) -> (ratio, gain)`, both [B, 1, ...]: ‖noise‖ / ‖score‖, which sets the step
        size of Langevin dynamics, and a factor on the drift that corrects for a state-dependent step size; `scale` is
        the standard deviation of diffused unit-variance data.
      enter_fn: `(key, z, step) -> z`, applied before the first kernel of a step.
      moving: bool [B, ...], entries that kernels move; the others are restored after each kernel.
    """

    score_fn: Callable[[Key, Array, Array], Array]
    noise_fn: Callable[[Key], Array]
    langevin_fn: Callable[[Array, Array, Array], tuple[Array, Array]]
    enter_fn: Callable[[Key, Array, Step], Array]
    moving: Array


class State(flax.struct.PyTreeNode):
    """The state that a solver carries from step to step.

    Attributes:
      z: the current sample [B, ...].
      previous: for multistep solvers, the clean data predicted at the previous step [B, ...]; else None.
      log_weights: for particle filters, unnormalised log weights [rows, particles]; else None.
    """

    z: Array
    previous: Array | None = None
    log_weights: Array | None = None


Kernel = Callable[[Key, State, Step, Dynamics], State]


def _draw(mean: Array, scale: Array, noise: Array, step: Step) -> Array:
    return mean + jnp.where(step.final, 0.0, scale) * noise


def _predict_data(key: Key, z: Array, step: Step, dynamics: Dynamics) -> Array:
    return (z + step.sigma**2 * dynamics.score_fn(key, z, step.t)) / step.alpha


def euler_maruyama(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """Step the reverse SDE by Euler-Maruyama: z - f z Δt + g² ∇log p_t(z) Δt + g √Δt ε."""
    score_key, noise_key = jax.random.split(key)
    score = dynamics.score_fn(score_key, state.z, step.t)
    mean = state.z + step.dt * (step.diffusion_squared * score - step.drift * state.z)
    scale = euler_maruyama_scale(step)
    return state.replace(z=_draw(mean, scale, dynamics.noise_fn(noise_key), step))


def euler_maruyama_scale(step: Step) -> Array:
    """Return the standard deviation g √Δt of an Euler-Maruyama step."""
    return jnp.sqrt(step.diffusion_squared * step.dt)


def langevin_corrector(snr: float, at_next: bool) -> Kernel:
    """Return the Langevin corrector z + η c ∇log p(z) + √(2η) ε, η = 2 a (snr ‖ε‖ / ‖∇log p(z)‖)².

    The ratio of norms and c (1 in the usual form) come from `Dynamics.langevin_fn`.

    a = max(1 - β Δt, 0) for VP processes, 1 for VE. Where β Δt > 1, the usual a = 1 - β Δt would be negative and √(2η)
    undefined; the corrector then does nothing.

    Args:
      snr: signal-to-noise ratio of a move.
      at_next: whether to correct at t_next (after a predictor) or at t (before one).

    Reference: Y. Song et al., 2020, algorithms 4 and 5. https://arxiv.org/abs/2011.13456
    """

    def kernel(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
        score_key, noise_key = jax.random.split(key)
        level = (step.t_next, step.alpha_next, step.sigma_next) if at_next else (step.t, step.alpha, step.sigma)
        t, alpha, sigma = level
        score = dynamics.score_fn(score_key, state.z, t)
        noise = dynamics.noise_fn(noise_key)
        ratio, gain = dynamics.langevin_fn(noise, score, jnp.sqrt(alpha**2 + sigma**2))
        size = 2 * jnp.maximum(1 + 2 * step.drift * step.dt, 0.0) * (snr * ratio) ** 2
        return state.replace(z=_draw(state.z + size * gain * score, jnp.sqrt(2 * size), noise, step))

    return kernel


def annealed_langevin(snr: float) -> Kernel:
    """Return Langevin dynamics at the noise level of t_next: z + η ∇log p(z) + √(2η) ε, η = (snr σ)².

    The last step omits the noise, unless the noise level stays constant in it.

    Args:
      snr: ratio of √η to σ.

    Reference: Y. Song and S. Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution",
    2019, algorithm 1. https://arxiv.org/abs/1907.05600
    """

    def kernel(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
        score_key, noise_key = jax.random.split(key)
        size = (snr * step.sigma_next) ** 2
        mean = state.z + size * dynamics.score_fn(score_key, state.z, step.t_next)
        sinks = step.sigma_next < step.sigma
        scale = jnp.where(step.final & sinks, 0.0, jnp.sqrt(2 * size))
        return state.replace(z=mean + scale * dynamics.noise_fn(noise_key))

    return kernel


def ddim(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """Step the probability-flow ODE exactly for constant D: (σ_s / σ_t) z + α_s (1 - e^-h) D.

    Reference: J. Song et al., "Denoising Diffusion Implicit Models", 2020, Eq. 12 with η = 0.
    https://arxiv.org/abs/2010.02502
    """
    data = _predict_data(key, state.z, step, dynamics)
    return state.replace(z=step.sigma_next / step.sigma * state.z + step.data_weight * data)


def heun(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """Step the probability-flow ODE, d(z/α) / d(σ/α) = -σ ∇log p_t(z), by Heun's method with two evaluations.

    Reference: T. Karras et al., 2022, algorithm 1. https://arxiv.org/abs/2206.00364
    """
    first_key, second_key = jax.random.split(key)
    scaled = state.z / step.alpha
    length = step.sigma_next / step.alpha_next - step.sigma / step.alpha
    slope = -step.sigma * dynamics.score_fn(first_key, state.z, step.t)
    euler = step.alpha_next * (scaled + length * slope)
    slope_next = -step.sigma_next * dynamics.score_fn(second_key, euler, step.t_next)
    return state.replace(z=step.alpha_next * (scaled + 0.5 * length * (slope + slope_next)))


def _extrapolated(key: Key, state: State, step: Step, dynamics: Dynamics) -> tuple[Array, Array]:
    """Return D and its second-order multistep extrapolation D + h / (2 h_previous) (D - D_previous)."""
    assert state.previous is not None  # the initial state of multistep solvers sets it
    data = _predict_data(key, state.z, step, dynamics)
    return data, data + step.extrapolation * (data - state.previous)


def dpm_solver_pp_2m(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """Step the probability-flow ODE by DPM-Solver++ 2M.

    (σ_s / σ_t) z + α_s (1 - e^-h) D₂, with D₂ = D + h / (2 h_previous) (D - D_previous).

    Reference: C. Lu et al., "DPM-Solver++", 2022, algorithm 2. https://arxiv.org/abs/2211.01095
    """
    data, extrapolated = _extrapolated(key, state, step, dynamics)
    z = step.sigma_next / step.sigma * state.z + step.data_weight * extrapolated
    return state.replace(z=z, previous=data)


def sde_dpm_solver_pp_2m(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """Step the reverse SDE by SDE-DPM-Solver++ 2M.

    (σ_s / σ_t) e^-h z + α_s (1 - e^-2h) D₂ + σ_s √(1 - e^-2h) ε,
    with D₂ = D + h / (2 h_previous) (D - D_previous).

    Reference: C. Lu et al., "DPM-Solver++", 2022, Eq. 18 and appendix B.
    """
    score_key, noise_key = jax.random.split(key)
    data, extrapolated = _extrapolated(score_key, state, step, dynamics)
    mean, scale = ancestral(state.z, extrapolated, step)
    return state.replace(z=_draw(mean, scale, dynamics.noise_fn(noise_key), step), previous=data)


def ancestral(z: Array, data: Array, step: Step) -> tuple[Array, Array]:
    """Return the mean and standard deviation of q(z_s | z_t, z_0 = data), for s < t."""
    decay, variance = _decay_and_variance(step)
    mean = step.sigma_next / step.sigma * decay * z + step.alpha_next * variance * data
    return mean, step.sigma_next * jnp.sqrt(variance)


def ancestral_scale(step: Step) -> Array:
    """Return the standard deviation σ_s √(1 - e^-2h) of q(z_s | z_t, z_0), for s < t."""
    return step.sigma_next * jnp.sqrt(_decay_and_variance(step)[1])


def _decay_and_variance(step: Step) -> tuple[Array, Array]:
    """Return e^-h and 1 - e^-2h."""
    decay = step.sigma_next * step.alpha / (step.sigma * step.alpha_next)
    # 1 - e^-2h = (1 - e^-h)(1 + e^-h); `data_weight` gives the first factor without cancellation.
    return decay, step.data_weight / step.alpha_next * (1 + decay)
