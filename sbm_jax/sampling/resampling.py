"""Repeats intervals of the time grid with fresh noise (RePaint), one by one or in blocks.

Reference: A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022,
  algorithm 1. https://arxiv.org/abs/2201.09865
"""

import dataclasses

import jax.numpy as jnp

from sbm_jax.errors import SbmError
from sbm_jax.sampling.kernels import Dynamics, State, Step
from sbm_jax.sampling.solvers import Solver
from sbm_jax.types import Key


def renoise(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
    """On a rewind, diffuse from s back to t: z_t ~ N(a z_s, (σ_t² - a² σ_s²) I), with a = α_t / α_s."""
    shrink = step.alpha / step.alpha_rewind
    scale = jnp.sqrt(jnp.maximum(step.sigma**2 - (shrink * step.sigma_rewind) ** 2, 0.0))
    return state.replace(z=jnp.where(step.rewind, shrink * state.z + scale * dynamics.noise_fn(key), state.z))


def resampled(solver: Solver, times: int) -> Solver:
    """Return a solver that passes through each block of intervals `times` times, adding noise again in between.

    Repeating harmonises generated entries with observed ones; it reduces the bias of single-time conditionings but does
    not remove it.

    Raises:
      SbmError: if the solver already repeats intervals, as annealed Langevin dynamics may.
    """
    if solver.repeats > 1:
        raise SbmError(
            "sampler: resampling cannot be combined with a solver that repeats its intervals ('langevin' "
            "with corrector_steps > 1); set resampling to 1 or choose another solver."
        )
    return dataclasses.replace(solver, kernels=(renoise, *solver.kernels), repeats=times)
