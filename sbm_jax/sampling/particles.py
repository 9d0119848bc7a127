"""A particle filter: asymptotically exact conditional samples from a score of the joint distribution alone.

The observed entries follow a path drawn from the forward process given their clean values. K particles follow the
reverse process with this path as their observed entries. Each is weighted by the likelihood it assigned to the next
point of the path, and particles are resampled when their weights become uneven. As K and the number of steps grow, the
unobserved entries of one particle, drawn with the final weights, follow the conditional distribution.

Reference: B. Trippe et al., "Diffusion probabilistic modeling of protein backbones in 3D for the
  motif-scaffolding problem", 2022, algorithm 2 (SMCDiff). https://arxiv.org/abs/2206.04119
"""

import dataclasses

import jax
import jax.numpy as jnp

from sbm_jax.errors import SbmError
from sbm_jax.sampling.kernels import Dynamics, State, Step, ancestral
from sbm_jax.sampling.noise import row_keys, row_normal
from sbm_jax.sampling.solvers import Solver
from sbm_jax.types import Array, Context, Key


def repeat_rows(context: Context, num_particles: int) -> Context:
    """Return the context of B * K particles, with the particles of a row next to each other.

    Args:
      context: observed masks [B, M].
      num_particles: K.

    Raises:
      SbmError: if `observed` is not [B, M].
    """
    if jnp.ndim(context.observed) != 2:
        raise SbmError(
            f"conditioning 'particles': observed must be [rows, modalities], not {list(jnp.shape(context.observed))}; "
            "broadcast it to the rows."
        )

    def repeat(array: Array | None) -> Array | None:
        return None if array is None else jnp.repeat(array, num_particles, axis=0)

    numbers = row_numbers(context)
    return context.replace(
        observed=repeat(context.observed),
        present=repeat(context.present),
        embedding=repeat(context.embedding),
        row_numbers=(numbers[:, None] * num_particles + jnp.arange(num_particles)[None]).ravel(),
    )


def row_numbers(context: Context) -> Array:
    """Return the number of each row in the whole batch, int [B]."""
    return jnp.arange(len(context.observed)) if context.row_numbers is None else context.row_numbers


def start(key: Key, z: Array, z_observed: Array, context: Context, first: Step) -> Array:
    """Return particles [B * K, N, ...] whose observed entries hold the start of the path, drawn from N(α z_o, σ²).

    Args:
      key: a typed key.
      z: draws from the prior [B * K, N, ...].
      z_observed: clean latents [B, N, ...].
      context: observed masks of the B rows.
      first: the first step.
    """
    noise = row_normal(key, z_observed.shape, context.row_numbers)
    return _with_path(z, first.alpha * z_observed + first.sigma * noise, context)


def filtered(solver: Solver, num_particles: int, z_observed: Array, context: Context, bound: Array) -> Solver:
    """Return a solver that moves particles [B * K, N, ...] and weights them.

    Args:
      solver: a solver whose step is one Gaussian draw.
      num_particles: K.
      z_observed: clean latents [B, N, ...].
      context: observed masks of the B rows.
      bound: a particle with an entry beyond this gets weight 0.

    Raises:
      SbmError: if a step of the solver is not one Gaussian draw.
    """
    if solver.scale_fn is None or solver.repeats > 1:
        raise SbmError(
            "sampler: conditioning 'particles' weights particles by the density of a step, which must be one "
            "Gaussian draw; choose the solver 'sde_dpm_solver_pp_2m' or 'euler_maruyama', with resampling = 1."
        )
    scale_fn = solver.scale_fn
    shape, entries = (len(z_observed), num_particles), tuple(range(2, z_observed.ndim + 1))
    given = context.given

    def init(z: Array) -> State:
        return solver.init(z).replace(log_weights=jnp.zeros(shape))

    def move(key: Key, state: State, step: Step, dynamics: Dynamics) -> State:
        move_key, path_key, resample_key, noise_key = jax.random.split(key, 4)
        # Without noise, a Gaussian step returns its mean.
        mean = solver.kernels[0](move_key, state, step, dynamics._replace(noise_fn=lambda _: jnp.zeros_like(state.z)))
        scale = scale_fn(step)
        # All particles of a row share the path.
        path_mean, path_scale = ancestral(_by_row(state.z, shape)[:, 0], z_observed, step)
        path = path_mean + path_scale * row_normal(path_key, z_observed.shape, context.row_numbers)
        # The extrapolation of a multistep solver would add noise to the weights, so they use its first-order step.
        expected = mean.z if mean.previous is None else ancestral(state.z, mean.previous, step)[0]
        misses = jnp.where(given[:, None], (path[:, None] - _by_row(expected, shape)) / scale, 0.0)
        within = (jnp.abs(_by_row(mean.z, shape)) <= bound) | ~context.valid[None, None]
        alive = jnp.all(within, axis=entries)
        log_weights = jnp.where(alive, _weights(state) - 0.5 * jnp.sum(misses**2, axis=entries), -jnp.inf)
        mean = _resample(row_keys(resample_key, row_numbers(context)), mean.replace(log_weights=log_weights))
        z = mean.z + jnp.where(step.final, 0.0, scale) * dynamics.noise_fn(noise_key)
        return mean.replace(z=_with_path(z, path, context))

    return dataclasses.replace(solver, kernels=(move,), evaluations=solver.evaluations * num_particles, init=init)


def choose(key: Key, state: State, context: Context) -> tuple[Array, Array]:
    """Draw one particle per row, [B, N, ...], by weight; also return bool [B], the rows that lost all particles.

    Args:
      key: a typed key.
      state: the particles after the last step.
      context: observed masks of the B rows.
    """
    lost, log_weights = _normalised(_weights(state))
    chosen = jax.vmap(jax.random.categorical)(row_keys(key, row_numbers(context)), log_weights)
    return _take(state.z, chosen[:, None]), lost


def _resample(keys: Key, state: State) -> State:
    """Apply systematic resampling to rows whose effective number of particles is below K / 2."""
    lost, log_weights = _normalised(_weights(state))
    num_particles = log_weights.shape[1]
    weights = jnp.exp(log_weights)
    uneven = 1 / jnp.sum(weights**2, axis=1, keepdims=True) < num_particles / 2
    offsets = jax.vmap(jax.random.uniform)(keys)[:, None]
    # Keep rounding from moving the last point to 1, beyond the particles of positive weight.
    points = jnp.minimum((jnp.arange(num_particles)[None] + offsets) / num_particles, 1 - 1e-7)
    cumulative = jnp.cumsum(weights, axis=1)
    cumulative = cumulative / cumulative[:, -1:]
    drawn = jax.vmap(lambda row, values: jnp.searchsorted(row, values, side="right"))(cumulative, points)
    ancestors = jnp.where(uneven, drawn, jnp.arange(num_particles)[None])
    log_weights = jnp.where(uneven, 0.0, log_weights)
    return state.replace(
        z=_take(state.z, ancestors),
        previous=None if state.previous is None else _take(state.previous, ancestors),
        log_weights=jnp.where(lost[:, None], -jnp.inf, log_weights),
    )


def _weights(state: State) -> Array:
    assert state.log_weights is not None  # particles have weights
    return state.log_weights


def _normalised(log_weights: Array) -> tuple[Array, Array]:
    """Return bool [B], the rows whose weights are all 0, and normalised log weights [B, K], uniform in those rows."""
    lost = jnp.all(jnp.isneginf(log_weights), axis=1)
    return lost, jax.nn.log_softmax(jnp.where(lost[:, None], 0.0, log_weights), axis=1)


def _take(array: Array, ancestors: Array) -> Array:
    """Select the particles `ancestors`, int [B, n], of each row from all [B * K, ...]: [B * n, ...]."""
    by_row = _by_row(array, (len(ancestors), -1))
    taken = jax.vmap(lambda row, index: row[index])(by_row, ancestors)
    return taken.reshape(-1, *array.shape[1:])


def _by_row(z: Array, shape: tuple[int, int]) -> Array:
    """Reshape particles [B * K, ...] to [B, K, ...]."""
    return z.reshape(*shape, *z.shape[1:])


def _with_path(z: Array, path: Array, context: Context) -> Array:
    """Set the observed entries of particles to the path [B, N, ...]."""
    return jnp.where(context.given[:, None], path[:, None], _by_row(z, (len(path), -1))).reshape(z.shape)
