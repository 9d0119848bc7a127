"""Time grids: the decreasing times t_0 > t_1 > ... > t_N between which a solver steps.

A grid is static: it is computed before tracing, in float64, and cast to float32 with exact end points.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.sde import SDE

Grid = Callable[[SDE, int, float, float], np.ndarray]


def _half_log_snr(sde: SDE, time: float) -> float:
    with jax.ensure_compile_time_eval():
        alpha, sigma = sde.marginal(jnp.float32(time))
        return float(np.log(np.float64(alpha)) - np.log(np.float64(sigma)))


def _from_half_log_snr(sde: SDE, half_log_snr: np.ndarray, start_time: float, end_time: float) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        times = np.array(sde.time_of_half_log_snr(jnp.asarray(half_log_snr, jnp.float32)))
    return _pinned(times, start_time, end_time)


def _pinned(times: np.ndarray, start_time: float, end_time: float) -> np.ndarray:
    """Return `times` as float32 with exact end points.

    Raises:
      SbmError: if neighbouring times coincide in float32.
    """
    times = times.astype(np.float32)
    times[0], times[-1] = start_time, end_time
    if not np.all(np.diff(times) < 0):
        raise SbmError(
            f"the time grid from {start_time} to {end_time} in {len(times) - 1} steps does not "
            "decrease strictly in float32; use fewer steps or a wider range."
        )
    return times


def uniform(sde: SDE, num_steps: int, start_time: float = 1.0, end_time: float = 1e-3) -> np.ndarray:
    """Return times [N + 1] uniform in t."""
    del sde
    return _pinned(np.linspace(start_time, end_time, num_steps + 1), start_time, end_time)


def log_snr(sde: SDE, num_steps: int, start_time: float = 1.0, end_time: float = 1e-3) -> np.ndarray:
    """Return times [N + 1] uniform in λ = log(α_t / σ_t).

    Reference: C. Lu et al., "DPM-Solver", 2022, section 3.4. https://arxiv.org/abs/2206.00927
    """
    values = np.linspace(_half_log_snr(sde, start_time), _half_log_snr(sde, end_time), num_steps + 1)
    return _from_half_log_snr(sde, values, start_time, end_time)


def karras(sde: SDE, num_steps: int, start_time: float = 1.0, end_time: float = 1e-3, rho: float = 7.0) -> np.ndarray:
    """Return times [N + 1] uniform in (σ_t / α_t)^(1/ρ).

    Reference: T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    Eq. 5. https://arxiv.org/abs/2206.00364
    """
    start, end = (np.exp(-_half_log_snr(sde, time) / rho) for time in (start_time, end_time))
    return _from_half_log_snr(sde, -rho * np.log(np.linspace(start, end, num_steps + 1)), start_time, end_time)


GRIDS: dict[str, Grid] = {"uniform": uniform, "log_snr": log_snr, "karras": karras}
