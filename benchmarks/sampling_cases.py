"""Cases of the sampler benchmarks: untrained score networks, and a sampling call on one device or on all."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.energy import PairEnergy
from sbm_jax.networks.score import ScoreModel, ScoreNetworkConfig, make_score_model
from sbm_jax.parallel import data_mesh
from sbm_jax.sampling import SOLVERS, SamplerOptions, sample
from sbm_jax.sampling.chunks import in_chunks
from sbm_jax.sampling.guidance import classifier_free, energy_guidance
from sbm_jax.sde import VP
from sbm_jax.systems.sbm import chunk_size
from sbm_jax.types import Array, Context, Key, Params, ScoreTransform

LATENT_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """One combination of the swept choices; see the flags."""

    network: str
    solver: str = "sde_dpm_solver_pp_2m"
    steps: int = 10
    batch: int = 256
    modalities: int = 10
    observed: int = 0
    dtype: str = "float32"
    mode: str = "jit"
    chunk: int = 0
    guidance: str = "none"

    def __post_init__(self):
        require(0 <= self.observed < self.modalities, "observed", self.observed, f"0 to {self.modalities - 1}")
        if self.solver not in SOLVERS:
            raise unknown("solver", self.solver, SOLVERS)
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if self.guidance not in GUIDANCES:
            raise unknown("guidance", self.guidance, GUIDANCES)

    @property
    def options(self) -> SamplerOptions:
        """Sampler options, with a grid on which the solver is stable in few steps."""
        grid = "uniform" if SOLVERS[self.solver](0.16, 1).explicit else "log_snr"
        return SamplerOptions(self.solver, self.steps, grid, chunk_size=self.chunk)

    @property
    def evaluations(self) -> int:
        """Network evaluations of one sampling call."""
        solver = SOLVERS[self.solver](0.16, 1)
        each = 2 if self.guidance == "contrastive" else 1
        return each * solver.evaluations * solver.repeats * self.steps


def make_model(network: str, dtype: str = "float32", sde: VP | None = None) -> ScoreModel:
    """Return the score model named by a string such as ``unet:128:plain``.

    Raises:
      SbmError: if the string names none.
    """
    match = re.fullmatch(r"([a-z]+):(\d+)(?:x(\d+))?(:plain)?", network)
    if not match or (match[4] and match[1] != "unet"):
        raise SbmError(
            f"--networks: unknown {network!r}; write transformer:128x4, mlp:1024x4, unet:128 or unet:128:plain."
        )
    config = ScoreNetworkConfig(match[1], int(match[2]), int(match[3] or 4), dtype=dtype)
    model = make_score_model(config, sde or VP(), "velocity")
    return dataclasses.replace(model, network=model.network.clone(conv_mode="conv")) if match[4] else model


def make_params(model: ScoreModel, modalities: int) -> Params:
    """Return random parameters, none of them zero, as after training."""
    context = Context(jnp.zeros((1, modalities), bool), jnp.ones((modalities, LATENT_SIZE), bool))
    shapes = jax.eval_shape(model.init, jax.random.key(0), context)
    generator = np.random.default_rng(0)

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        if path[-1].key == "scale":
            return jnp.ones(leaf.shape)
        values = generator.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(values * (math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100) ** -0.5)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_sampler(model: ScoreModel, case: Case) -> Callable[[Params, Key, dict[str, Array]], Array]:
    """Return the sampling function `(params, key, {z, observed, row_numbers}) -> [B, M, D]` for one device."""
    valid = jnp.ones((case.modalities, LATENT_SIZE), bool)

    def sample_rows(params: Params, key: Key, chunk: dict[str, Array]) -> Array:
        context = Context(chunk["observed"], valid, row_numbers=chunk["row_numbers"])
        score_fn = model.bind(params, context, chunk["z"], case.modalities - case.observed)
        transforms = GUIDANCES[case.guidance](model, params, context, chunk["z"])
        return sample(score_fn, model.sde, key, chunk["z"], context, case.options, transforms).z

    def sampler(params: Params, key: Key, given: dict[str, Array]) -> Array:
        return in_chunks(functools.partial(sample_rows, params, key), given, chunk_size(case.options))

    return sampler


def make_given(case: Case) -> dict[str, Array]:
    """Return the latents, observed sets (the first modalities) and row numbers of a batch."""
    shape = (case.batch, case.modalities, LATENT_SIZE)
    observed = jnp.broadcast_to(jnp.arange(case.modalities) < case.observed, shape[:2])
    return {
        "z": jax.random.normal(jax.random.key(1), shape),
        "observed": observed,
        "row_numbers": jnp.arange(case.batch),
    }


# MARK: Guidance, with an untrained energy model and without embeddings


def _none(model: ScoreModel, params: Params, context: Context, z: Array) -> tuple[ScoreTransform, ...]:
    del model, params, context, z
    return ()


def _energy(model: ScoreModel, params: Params, context: Context, z: Array) -> tuple[ScoreTransform, ...]:
    """Guidance by the gradient of the energies of all pairs of an observed and an unobserved modality."""
    del model, params, context
    network, t = PairEnergy(128, 3), jnp.zeros(z.shape[:2])
    pairs = jnp.zeros((len(z), 1, 2), jnp.int32)
    weights = network.init(jax.random.key(0), z, t, z, t, pairs)
    return (energy_guidance(lambda z, t, pairs: network.apply(weights, z, t, z, t, pairs), 1.0, "all"),)


def _contrastive(model: ScoreModel, params: Params, context: Context, z: Array) -> tuple[ScoreTransform, ...]:
    """Guidance by a second network evaluation in every step, in which the observed modalities are absent."""
    nothing = jnp.zeros_like(context.observed)
    unobserved = context.replace(observed=nothing, present=~context.observed)
    return (classifier_free(model.bind(params, unobserved, z), 1.0),)


GUIDANCES: dict[str, Callable] = {"none": _none, "energy": _energy, "contrastive": _contrastive}

# MARK: On one device and on all


def _jit(sampler: Callable, given: dict[str, Array]) -> tuple[Callable, dict[str, Array]]:
    return jax.jit(sampler), given


def _shard_map(sampler: Callable, given: dict[str, Array]) -> tuple[Callable, dict[str, Array]]:
    rows, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(sampler, mesh=data_mesh(), in_specs=(whole, whole, rows), out_specs=rows, check_vma=False)
    return jax.jit(sharded), given


def _pmap(sampler: Callable, given: dict[str, Array]) -> tuple[Callable, dict[str, Array]]:
    devices = jax.device_count()
    split = {name: array.reshape(devices, -1, *array.shape[1:]) for name, array in given.items()}
    return jax.pmap(sampler, in_axes=(None, None, 0)), split


MODES: dict[str, Callable] = {"jit": _jit, "shard_map": _shard_map, "pmap": _pmap}

# MARK: Work


def evaluation_flops(case: Case) -> float:
    """Return XLA's count of floating-point operations of one network evaluation of the whole batch.

    Convolutions are counted as such, whatever form they are computed in; observed modalities count only insofar as
    their keys and values are not cached.
    """
    model = make_model(case.network)
    if case.network.startswith("unet"):
        model = dataclasses.replace(model, network=model.network.clone(conv_mode="conv"))
    params = make_params(model, case.modalities)
    given = make_given(case)
    context = Context(given["observed"], jnp.ones((case.modalities, LATENT_SIZE), bool))

    def evaluate(times: int, params: Params, z: Array) -> Array:
        score_fn = model.bind(params, context, given["z"], case.modalities - case.observed)
        for _ in range(times):
            z = score_fn(jax.random.key(0), z, jnp.full(z.shape[:2], 0.5))
        return z

    def count(times: int) -> float:
        return jax.jit(functools.partial(evaluate, times)).lower(params, given["z"]).cost_analysis()["flops"]

    return count(2) - count(1)  # without the work that a sampling call does once
