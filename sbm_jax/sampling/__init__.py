"""Sampling: time grids, solvers, conditioning and the sampling loop. Depends on scores, not on networks."""

from sbm_jax.sampling.conditioning import CONDITIONINGS, Conditioning
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.loop import SampleResult, SamplerOptions, bind_context, integrate, sample
from sbm_jax.sampling.solvers import SOLVERS, Solver
from sbm_jax.sampling.starts import gaussian_conditional

__all__ = [
    "CONDITIONINGS",
    "GRIDS",
    "SOLVERS",
    "Conditioning",
    "SampleResult",
    "SamplerOptions",
    "Solver",
    "bind_context",
    "gaussian_conditional",
    "integrate",
    "sample",
]
