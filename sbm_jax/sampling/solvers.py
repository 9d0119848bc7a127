"""Solvers: the kernels that make up a step, and its cost."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.sampling import kernels
from sbm_jax.sampling.kernels import Kernel, State, Step
from sbm_jax.sde import SDE, VP
from sbm_jax.types import Array


def _plain_state(z: Array) -> State:
    return State(z)


def _multistep_state(z: Array) -> State:
    return State(z, jnp.zeros_like(z))


@dataclasses.dataclass(frozen=True)
class Solver:
    """A sequence of kernels to apply in every step.

    Attributes:
      kernels: the kernels of a step, in order; in the last step, the last one returns its mean.
      evaluations: network evaluations per step.
      init: makes the state from the initial sample.
      repeats: number of times to step through each interval of the grid.
      explicit: whether a step is an explicit Euler step in time, which is unstable if it is too long.
      scale_fn: `step -> standard deviation`, if a step is a single Gaussian draw; else None.
    """

    kernels: tuple[Kernel, ...]
    evaluations: int
    init: Callable[[Array], State] = _plain_state
    repeats: int = 1
    explicit: bool = False
    scale_fn: Callable[[Step], Array] | None = None


SolverFactory = Callable[[float, int], Solver]


def _euler_maruyama(snr: float, corrector_steps: int) -> Solver:
    del snr, corrector_steps
    return Solver((kernels.euler_maruyama,), evaluations=1, explicit=True, scale_fn=kernels.euler_maruyama_scale)


def _predictor_corrector(snr: float, corrector_steps: int) -> Solver:
    # Corrects at the time that the predictor has reached (algorithm 1 of Song et al.); the authors of the multimodal
    # paper correct at the previous time, one noise level too high.
    corrector = kernels.langevin_corrector(snr, at_next=True)
    moves = (kernels.euler_maruyama, *(corrector,) * corrector_steps)
    return Solver(moves, evaluations=1 + corrector_steps, explicit=True)


def _corrector_predictor(snr: float, corrector_steps: int) -> Solver:
    corrector = kernels.langevin_corrector(snr, at_next=False)
    moves = (*(corrector,) * corrector_steps, kernels.euler_maruyama)
    return Solver(moves, evaluations=1 + corrector_steps, explicit=True)


def _langevin(snr: float, corrector_steps: int) -> Solver:
    return Solver((kernels.annealed_langevin(snr),), evaluations=1, repeats=corrector_steps)


def _ddim(snr: float, corrector_steps: int) -> Solver:
    del snr, corrector_steps
    return Solver((kernels.ddim,), evaluations=1)


def _heun(snr: float, corrector_steps: int) -> Solver:
    del snr, corrector_steps
    return Solver((kernels.heun,), evaluations=2)


def _dpm_solver_pp_2m(snr: float, corrector_steps: int) -> Solver:
    del snr, corrector_steps
    return Solver((kernels.dpm_solver_pp_2m,), evaluations=1, init=_multistep_state)


def _sde_dpm_solver_pp_2m(snr: float, corrector_steps: int) -> Solver:
    del snr, corrector_steps
    move = kernels.sde_dpm_solver_pp_2m
    return Solver((move,), evaluations=1, init=_multistep_state, scale_fn=kernels.ancestral_scale)


SOLVERS: dict[str, SolverFactory] = {
    "euler_maruyama": _euler_maruyama,
    "predictor_corrector": _predictor_corrector,
    "corrector_predictor": _corrector_predictor,
    "langevin": _langevin,
    "ddim": _ddim,
    "heun": _heun,
    "dpm_solver_pp_2m": _dpm_solver_pp_2m,
    "sde_dpm_solver_pp_2m": _sde_dpm_solver_pp_2m,
}


def check_stability(sde: SDE, times: np.ndarray) -> None:
    """Reject a grid on which explicit Euler steps overshoot.

    For unit-variance data, the reverse drift contracts at the rate r = f + g² / (α² + σ²), which is β/2 for VP. A step
    with r Δt ≥ 1 (β Δt ≥ 2) multiplies the state by 1 - r Δt ≤ 0: it overshoots the mean, and narrower data diverge.

    Raises:
      SbmError: if r Δt reaches 1, within one per cent, at any step.
    """
    with jax.ensure_compile_time_eval():
        at = jnp.asarray(times[:-1])
        alpha, sigma = sde.marginal(at)
        rate = np.asarray(sde.drift(at) + sde.diffusion_squared(at) / (alpha**2 + sigma**2))
    contraction = rate * -np.diff(times)
    worst = int(np.argmax(contraction))
    if contraction[worst] >= 0.99:
        enough = int(np.ceil((len(times) - 1) * contraction[worst] / 0.99)) + 1
        raise SbmError(
            f"{len(times) - 1} steps are too few for explicit Euler-Maruyama: at t = {times[worst]:.3g} the "
            f"step has β·dt = {2 * contraction[worst]:.2f}, and β·dt >= 2 is unstable. Use at least about "
            f"{enough} steps{', a smaller beta_max' if isinstance(sde, VP) else ''}, or a solver without this limit, "
            "such as 'sde_dpm_solver_pp_2m'."
        )
