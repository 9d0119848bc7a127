"""The sampler: its options and the loop over steps."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.sampling import particles
from sbm_jax.sampling.conditioning import CONDITIONINGS, make_dynamics
from sbm_jax.sampling.grids import GRIDS
from sbm_jax.sampling.kernels import Dynamics, State, Step, make_steps
from sbm_jax.sampling.noise import row_normal
from sbm_jax.sampling.resampling import resampled
from sbm_jax.sampling.solvers import SOLVERS, Solver, check_stability
from sbm_jax.sde import SDE
from sbm_jax.tokens import is_owner, num_modalities
from sbm_jax.types import Array, Context, Key, ScoreFn, ScoreTransform

STARTS = ("prior", "gaussian")

_UNROLLED_STEPS = 32  # longest loop that is unrolled automatically


@checked_dataclass
class SamplerOptions:
    """Static options of a sampler.

    Attributes:
      solver: a key of `SOLVERS`.
      num_steps: N, intervals of the time grid.
      grid: a key of `GRIDS`.
      conditioning: a key of `CONDITIONINGS`.
      start_time: time of the first step, in (0, 1].
      end_time: time at the end of the last step, in (0, start_time). In `python -m benchmarks.known_answer`, 10 steps
        of the default solver have errors of 0.026 in the mode weights (total variation) and 0.14 in the covariances
        with 3e-3, and of 0.030 and 0.17 with the usual 1e-3. The noise that remains at this time (σ = 0.02 for VP)
        limits the resolution of samples.
      snr: signal-to-noise ratio of Langevin moves.
      corrector_steps: Langevin moves per step, for solvers with a corrector.
      resampling: number of passes through each block of intervals, with noise added again in between; 1 for no
        resampling.
      resampling_length: intervals per block; a divisor of num_steps.
      num_particles: K, particles per row with the conditioning ``"particles"``.
      start: ``"prior"``, or ``"gaussian"`` for a draw that treats all latents as jointly Gaussian, which saves the
        first steps at a start_time below 1 (`starts.gaussian_conditional`).
      unroll: steps per iteration of the compiled loop; `num_steps` unrolls all, 0 chooses (`automatic_unroll`).
      chunk_size: rows to sample at a time, in sequential chunks; 0 chooses.
      divergence_bound: a row diverges if an entry exceeds this many standard deviations of the prior.

    Raises:
      SbmError: on an unknown name, a value out of range, or incompatible options.
    """

    solver: str = "sde_dpm_solver_pp_2m"
    num_steps: int = 20
    grid: str = "log_snr"
    conditioning: str = "per_modality"
    start_time: float = 1.0
    end_time: float = 3e-3
    snr: float = 0.16
    corrector_steps: int = 1
    resampling: int = 1
    resampling_length: int = 1
    num_particles: int = 16
    start: str = "prior"
    unroll: int = 0
    chunk_size: int = 0
    divergence_bound: float = 100.0

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for field, name, known in (
            ("solver", self.solver, SOLVERS),
            ("grid", self.grid, GRIDS),
            ("conditioning", self.conditioning, CONDITIONINGS),
            ("start", self.start, STARTS),
        ):
            if name not in known:
                raise unknown(field, name, known)
        for field in ("num_steps", "corrector_steps", "resampling", "resampling_length", "num_particles"):
            if getattr(self, field) < 1:
                raise SbmError(f"sampler: {field} must be at least 1, not {getattr(self, field)}.")
        for field in ("unroll", "chunk_size"):
            if getattr(self, field) < 0:
                raise SbmError(f"sampler: {field} must be 0 (automatic) or more, not {getattr(self, field)}.")
        for field in ("snr", "divergence_bound"):
            if not getattr(self, field) > 0:
                raise SbmError(f"sampler: {field} must be positive, not {getattr(self, field)}.")
        if self.conditioning == "particles" and self.start != "prior":
            raise SbmError("sampler: conditioning 'particles' starts from the prior; set start to 'prior'.")
        if self.conditioning == "reference" and (self.resampling > 1 or self.chunk_size):
            raise SbmError(
                "sampler: conditioning 'reference' makes rows and steps depend on each other; set resampling to 1 and "
                "chunk_size to 0."
            )
        if not 0 < self.end_time < self.start_time <= 1:
            raise SbmError(
                "sampler: times must satisfy 0 < end_time < start_time <= 1, not "
                f"end_time = {self.end_time}, start_time = {self.start_time}."
            )


class SampleResult(NamedTuple):
    """The result of a sampling call.

    Attributes:
      z: latents [B, N, ...]: observed entries unchanged, padding 0, NaN at sampled entries of diverged rows.
      network_evaluations: int32, evaluations of the score function per row.
      diverged: bool [B], rows that became non-finite or exceeded the bound at any step.
    """

    z: Array
    network_evaluations: Array
    diverged: Array


def sample(
    score_fn: ScoreFn,
    sde: SDE,
    key: Key,
    z_observed: Array,
    context: Context,
    options: SamplerOptions | None = None,
    transforms: Sequence[ScoreTransform] = (),
    start: Array | None = None,
) -> SampleResult:
    """Sample the unobserved latents given the observed ones.

    Each row has its own observed mask, and its sample does not depend on other rows (except with the conditioning
    ``"reference"``): given `context.row_numbers`, sampling a batch in chunks yields the same samples as sampling it
    whole. Memory does not grow with the number of steps.

    Args:
      score_fn: the score, bound to `bind_context(options, context)`.
      sde: the process that the score was trained with.
      key: a typed key.
      z_observed: clean latents [B, N, D], or data of any rank [B, N, ...] (see `Context`); only observed, valid entries
        are read.
      context: observed masks [B, M] (or [M] for all rows) and padding.
      options: static options; None for the defaults.
      transforms: guidance, applied to the score function in this order, with the rows of `bind_context`.
      start: clean latents [B, N, ...] whose unobserved entries, diffused to `options.start_time`, replace the draw from
        the prior; see `starts.gaussian_conditional`.

    Raises:
      SbmError: on mismatched shapes or options, or a step size at which the solver is unstable.
    """
    options = SamplerOptions() if options is None else options
    _check_arguments(score_fn, sde, key, context, options, transforms)
    context = _checked(context, z_observed, start)
    if start is None and options.start == "gaussian":
        raise SbmError("sample: the option start = 'gaussian' needs the argument start, from `gaussian_conditional`.")
    conditioning = CONDITIONINGS[options.conditioning]
    if conditioning.filters and start is not None:
        raise SbmError(
            "sample: the particles of conditioning 'particles' start from the prior, independently of the observed "
            "entries; leave `start` out."
        )
    solver, steps = _plan(sde, options)
    first = jax.tree.map(lambda values: values[0], steps)
    prior_scale = jnp.sqrt(first.alpha**2 + first.sigma**2)
    bound = options.divergence_bound * prior_scale
    z_observed = jnp.where(context.given, jnp.asarray(z_observed, jnp.float32), 0.0)
    repeated = particles.repeat_rows(context, options.num_particles) if conditioning.filters else context
    score_fn = _same_shape(score_fn)
    for transform in transforms:
        score_fn = transform(score_fn, repeated)

    init_key, loop_key, path_key, choice_key = jax.random.split(key, 4)
    noise = row_normal(init_key, (len(repeated.observed), *z_observed.shape[1:]), repeated.row_numbers)
    if conditioning.filters:
        noise = jnp.where(context.valid[None], noise, 0.0)
        z = particles.start(path_key, prior_scale * noise, z_observed, context, first)
        solver = particles.filtered(solver, options.num_particles, z_observed, context, bound)
        dynamics = make_dynamics(conditioning, score_fn, sde, z, conditioning.bind_context(repeated))
    else:
        z = prior_scale * noise if start is None else first.alpha * start + first.sigma * noise
        z = jnp.where(context.free, z, z_observed)
        dynamics = make_dynamics(conditioning, score_fn, sde, z_observed, context)
    unroll = options.unroll or automatic_unroll(len(steps.index), jax.default_backend())
    state, diverged = integrate(solver, dynamics, steps, loop_key, solver.init(z), bound, unroll)
    if conditioning.filters:
        z, diverged = particles.choose(choice_key, state, context)
    else:
        z = state.z
    lost = diverged.reshape(-1, *(1,) * (z.ndim - 1))
    z = jnp.where(context.free, jnp.where(lost, jnp.nan, z), z_observed)
    return SampleResult(z, jnp.int32(len(steps.index) * solver.evaluations), diverged)


def automatic_unroll(num_steps: int, backend: str) -> int:
    """Choose how many steps one iteration of the compiled loop takes.

    A GPU launches a short unrolled loop as one graph, but would otherwise wait for the host at every step. A CPU gains
    nothing from unrolling, and compiles longer.

    Args:
      num_steps: steps of the loop.
      backend: name of JAX's backend.
    """
    return num_steps if backend == "gpu" and num_steps <= _UNROLLED_STEPS else 1


def _plan(sde: SDE, options: SamplerOptions) -> tuple[Solver, Step]:
    """Return the solver and the constants of all its steps.

    Raises:
      SbmError: on a step size at which the solver is unstable.
    """
    solver = SOLVERS[options.solver](options.snr, options.corrector_steps)
    times = GRIDS[options.grid](sde, options.num_steps, options.start_time, options.end_time)
    if solver.explicit:
        check_stability(sde, times)
    if options.resampling > 1:
        solver = resampled(solver, options.resampling)
    block = options.resampling_length if options.resampling > 1 else 1
    return solver, make_steps(sde, times, solver.repeats, block)


def integrate(
    solver: Solver, dynamics: Dynamics, steps: Step, key: Key, state: State, bound: Array | float, unroll: int = 1
) -> tuple[State, Array]:
    """Run a solver over all steps. All sampling in this package uses this loop.

    Args:
      solver: the kernels.
      dynamics: the distribution being sampled.
      steps: constants of the steps, arrays [N].
      key: a typed key; step i uses `fold_in(key, i)`.
      state: the initial state, from `solver.init`.
      bound: largest allowed magnitude of a moving entry.
      unroll: steps per iteration.

    Returns:
      The final state, and bool [B], the rows that exceeded the bound or became non-finite at any step.
    """
    last = len(solver.kernels) - 1

    def advance(carry: tuple[State, Array], step: Step) -> tuple[tuple[State, Array], None]:
        state, diverged = carry
        step_key = jax.random.fold_in(key, step.index)
        state = state.replace(z=dynamics.enter_fn(jax.random.fold_in(step_key, last + 1), state.z, step))
        for i, kernel in enumerate(solver.kernels):
            this = step if i == last else step.replace(final=jnp.zeros_like(step.final))
            moved = kernel(jax.random.fold_in(step_key, i), state, this, dynamics)
            state = moved.replace(z=jnp.where(dynamics.moving, moved.z, state.z))
        within = (jnp.abs(state.z) <= bound) | ~dynamics.moving  # False where z is NaN
        return (state, diverged | ~jnp.all(within, axis=tuple(range(1, within.ndim)))), None

    start = (state, jnp.zeros(state.z.shape[:1], bool))
    return jax.lax.scan(advance, start, jax.tree.map(jnp.asarray, steps), unroll=unroll)[0]


def bind_context(options: SamplerOptions, context: Context) -> Context:
    """Return the context to bind a score network to for these options.

    For conditionings with a single time, nothing in it is observed; with ``"particles"``, its rows are the B * K
    particles.

    Raises:
      SbmError: with ``"particles"``, if `observed` is not [B, M].
    """
    conditioning = CONDITIONINGS[options.conditioning]
    repeated = particles.repeat_rows(context, options.num_particles) if conditioning.filters else context
    return conditioning.bind_context(repeated)


def _check_arguments(
    score_fn: ScoreFn, sde: SDE, key: Key, context: Context, options: SamplerOptions, transforms: Sequence
) -> None:
    """Check the types of the arguments.

    Raises:
      SbmError: naming the first invalid argument.
    """
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    transforming = isinstance(transforms, Sequence) and all(map(callable, transforms))
    for name, value, fits, expected in (
        ("score_fn", score_fn, callable(score_fn), "a function (key, z, t) -> score"),
        ("sde", sde, callable(getattr(sde, "marginal", None)), "a process, such as sbm_jax.sde.VP()"),
        ("key", key, is_key, "one typed key, from jax.random.key"),
        ("context", context, isinstance(context, Context), "a sbm_jax.types.Context"),
        ("options", options, isinstance(options, SamplerOptions), "SamplerOptions, or None"),
        ("transforms", transforms, transforming, "a sequence of functions (score_fn, context) -> score_fn"),
    ):
        if not fits:
            raise SbmError(f"sample: {name} is {value!r:.80}; expected {expected}.")


def _same_shape(score_fn: ScoreFn) -> ScoreFn:
    """Wrap a score function to check, while tracing, that the score has the shape of its latents."""

    def checked(key: Key, z: Array, t: Array) -> Array:
        score = score_fn(key, z, t)
        if jnp.shape(score) != z.shape:
            raise SbmError(
                f"sample: score_fn returns the shape {list(jnp.shape(score))}; expected that of z, {list(z.shape)}."
            )
        return score

    return checked


def _checked(context: Context, z_observed: Array, start: Array | None) -> Context:
    """Return the context with `observed` broadcast to all rows, after checking it.

    Raises:
      SbmError: on mismatched shapes or types.
    """
    if jnp.ndim(z_observed) < 2:
        raise SbmError(f"sample: z_observed must be [rows, tokens, ...], not {list(jnp.shape(z_observed))}.")
    rows, *shape = jnp.shape(z_observed)
    if jnp.shape(context.valid) != tuple(shape):
        raise SbmError(f"sample: valid must be {shape}, not {list(jnp.shape(context.valid))}.")
    if context.owner and (len(context.owner) != shape[0] or not is_owner(context.owner)):
        raise SbmError(
            f"sample: owner must give the modality of each of {shape[0]} tokens, in the order of modalities (0, ..., "
            f"1, ...), not {context.owner}."
        )
    modalities = num_modalities(context.owner, shape[0])
    observed = jnp.asarray(context.observed)
    if observed.dtype != jnp.bool_ or observed.shape not in ((rows, modalities), (modalities,)):
        raise SbmError(
            f"sample: observed must be bool [{rows}, {modalities}] or [{modalities}], not {observed.dtype} "
            f"{list(observed.shape)}."
        )
    if context.row_numbers is not None and jnp.shape(context.row_numbers) != (rows,):
        raise SbmError(f"sample: row_numbers must be int [{rows}], not {list(jnp.shape(context.row_numbers))}.")
    if start is not None and jnp.shape(start) != jnp.shape(z_observed):
        raise SbmError(f"sample: start must be {list(jnp.shape(z_observed))}, not {list(jnp.shape(start))}.")
    if observed.ndim == 1:
        observed = observed[None]
    return context.replace(observed=jnp.broadcast_to(observed, (rows, modalities)), valid=jnp.asarray(context.valid))
