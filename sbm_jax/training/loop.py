"""The training loop shared by all stages."""

import contextlib
import functools
import logging
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview

from sbm_jax import memory, parallel, preemption
from sbm_jax.data.pipeline import batch_rows
from sbm_jax.errors import SbmError
from sbm_jax.progress import progress_bar
from sbm_jax.training.checkpoints import Checkpoints
from sbm_jax.training.optimizers import make_optimizer
from sbm_jax.training.profiling import Profile, model_flops, speed
from sbm_jax.training.writers import MetricWriter
from sbm_jax.types import Array, Key, Params, Stage

logger = logging.getLogger(__name__)


class TrainState(flax.struct.PyTreeNode):
    """Everything that training carries from step to step; keys and data positions are functions of `step`."""

    step: Array
    params: Params
    opt_state: Any
    ema: Params | None

    @property
    def product(self) -> Params:
        """The parameters that other stages use: the moving average, if one is kept."""
        return self.params if self.ema is None else self.ema


class StageKeys(NamedTuple):
    """The random keys of one stage: for its parameters, its steps and its validation."""

    init: Key
    steps: Key
    validation: Key


def stage_keys(seed: int, name: str) -> StageKeys:
    """Derive the keys of a stage from the run's seed and the stage's name."""
    return StageKeys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), 3))


def init_state(stage: Stage, key: Key, upstream: Mapping[str, Params]) -> TrainState:
    """Return the training state before the first step."""
    params = stage.init(key, upstream)
    optimizer = make_optimizer(stage.training.optimizer, stage.num_steps)
    # Copy, because the donated state must not hold one buffer twice.
    ema = jax.tree.map(jnp.copy, params) if stage.training.optimizer.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def state_shardings(stage: Stage, state: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    """Return the shardings of a training state, of arrays or shapes, on a mesh."""
    if stage.training.split_parameters:
        return parallel.split_large(state, mesh)
    return jax.tree.map(lambda leaf: parallel.replicated(mesh), state)


def make_train_steps(stage: Stage, feed: parallel.Feed):
    """Return the compiled `(state, upstream, rows, parts, key) -> (state, metrics)` that takes K steps.

    The state is donated. Step n, counted from 0, uses `fold_in(key, n)` and the batch that `feed.batch` builds from
    `rows` and one of the K parts, both from `feed.take`, so the outcome does not depend on where a run was interrupted.
    Metrics are means over the K steps; ``steps`` holds their values at each step, [K], and the gradient norm of each
    parameter array, [K, number of arrays]; ``finite`` is whether the product is finite after the last step.
    """
    optimizer = make_optimizer(stage.training.optimizer, stage.num_steps)

    def one_step(upstream, rows, key, state, part):
        batch = feed.batch(rows, part)
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), gradient = jax.value_and_grad(stage.loss, has_aux=True)(
            state.params, upstream, step_key, batch
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            # Average over a short window at first, because early parameters are poor.
            decay = jnp.minimum(stage.training.optimizer.ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = optax.incremental_update(params, ema, 1.0 - decay)
        norms = jnp.stack([jnp.sqrt(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient)])
        metrics = {"loss": loss, "gradient_norm": jnp.sqrt(jnp.sum(jnp.square(norms))), **metrics}
        return TrainState(state.step + 1, params, opt_state, ema), (metrics, norms)

    @functools.partial(jax.jit, donate_argnames=("state",))
    def train_steps(state, upstream, rows, parts, key):
        body = functools.partial(one_step, upstream, rows, key)
        if len(jax.tree.leaves(parts)[0]) == 1:  # XLA:CPU runs convolutions inside a loop on a single thread
            state, each = body(state, jax.tree.map(lambda array: array[0], parts))
            each = jax.tree.map(lambda array: array[None], each)
        else:
            state, each = jax.lax.scan(body, state, parts)
        if stage.training.split_parameters:  # keep the sharding, whatever the compiler would choose
            state = jax.lax.with_sharding_constraint(state, state_shardings(stage, state, feed.mesh))
        metrics, norms = each
        means = jax.tree.map(lambda values: values.mean(axis=0), metrics)
        finite = jnp.isfinite(optax.tree.norm(state.product))
        return state, {**means, "steps": {**metrics, "gradients": norms}, "finite": finite}

    return train_steps


def _make_validate(stage: Stage, upstream: Mapping[str, Params], key: Key, mesh: jax.sharding.Mesh):
    feed = parallel.Feed(stage.validation_rows(upstream), mesh, on_host=False)
    num_rows, size = min(feed.num_rows, stage.training.validate_rows or feed.num_rows), stage.training.batch_size
    loss = stage.validation_loss or stage.loss

    starts = range(0, num_rows, size)

    @jax.jit
    def loss_fn(params, upstream, rows, parts, key):
        return loss(params, upstream, key, feed.batch(rows, jax.tree.map(lambda array: array[0], parts)))

    def batch(number: int) -> np.ndarray:
        return np.arange(starts[number], min(starts[number] + size, num_rows))[None]

    def validate(params: Params) -> dict[str, float]:
        """Return metrics averaged over the rows, the last, smaller batch weighted by its size."""
        totals: dict[str, float] = {}
        for start, (rows, parts) in zip(starts, feed.read(len(starts), batch), strict=True):
            weight = min(size, num_rows - start) / num_rows
            loss, metrics = loss_fn(params, upstream, rows, parts, jax.random.fold_in(key, start))
            for name, value in {"loss": loss, **metrics}.items():
                totals[name] = totals.get(name, 0.0) + weight * float(value)
        return totals

    return validate


def _schedule(stage: Stage, first_step: int) -> list[int]:
    """Return the number of steps of each dispatch from `first_step` on; checkpoints fall between dispatches.

    Every dispatch ends at a multiple of `steps_per_dispatch`, a checkpoint, a validation or the last step, wherever the
    run started, so a resumed run makes the same dispatches as an uninterrupted one.
    """
    stops = {stage.num_steps}
    for every in (
        stage.training.steps_per_dispatch,
        stage.training.checkpoint_every,
        stage.training.validate_every,
    ):
        if every:
            stops.update(range(every, stage.num_steps, every))
    ends = sorted(stop for stop in stops if stop > first_step)
    return [end - start for start, end in zip([first_step, *ends], ends, strict=False)]


def train(
    stage: Stage,
    upstream: Mapping[str, Params],
    checkpoints: Checkpoints,
    metrics_dir: Path,
    seed: int,
    mesh: jax.sharding.Mesh,
    profile_dir: Path | None = None,
) -> Params:
    """Train one stage to the end, from its last checkpoint if there is one, and return its product.

    Raises:
      Preempted: after saving everything, if any process of the run received SIGTERM.
      SbmError: if the batch size does not suit the mesh, memory or disk space is too small, or training diverges.
    """
    parallel.check_batch_size(stage.training.batch_size, mesh, f"stage {stage.name!r}")
    keys = parallel.replicate(stage_keys(seed, stage.name), mesh)
    upstream = parallel.replicate(dict(upstream), mesh)
    state = _restore_or_init(stage, upstream, checkpoints, keys.init, mesh)
    first_step = int(state.step)
    if first_step == stage.num_steps:
        return parallel.replicate(state.product, mesh)
    if first_step:
        logger.info("stage %s resumes from step %d.", stage.name, first_step)
    logger.info("stage %s: %s parameters.", stage.name, f"{parameter_overview.count_parameters(state.params):,}")

    feed = parallel.Feed(stage.rows(upstream), mesh)
    train_steps = make_train_steps(stage, feed)
    validate = _make_validate(stage, upstream, keys.validation, mesh) if stage.training.validate_every else None
    done = saved = first_step
    pending, flops, start = None, None, time.monotonic()
    counts = _schedule(stage, first_step)
    starts = np.cumsum([first_step, *counts])

    def batches(number: int) -> np.ndarray:
        return batch_rows(feed.num_rows, stage.training.batch_size, seed, int(starts[number]), counts[number])

    with (
        contextlib.closing(feed.read(len(counts), batches)) as read,
        contextlib.closing(MetricWriter(metrics_dir, stage.name, first_step)) as writer,
        progress_bar(f"train {stage.name}", stage.num_steps, done=first_step) as advance,
        contextlib.closing(Profile(profile_dir and profile_dir / stage.name)) as profile,
        preemption.saving_first(),
    ):
        for count, (rows, parts) in zip(counts, read, strict=True):
            profile.step()
            if flops is None:
                flops = model_flops(train_steps, state, upstream, rows, parts, keys.steps)
            state, metrics = train_steps(state, upstream, rows, parts, keys.steps)
            checkpoints.poll()
            _write(writer, stage, state, pending)  # of the previous dispatch, so that the device never waits
            done += count
            pending = (done, metrics)
            if validate is not None and (done % stage.training.validate_every == 0 or done == stage.num_steps):
                writer.write(done, "validation", validate(state.product))
            ends = preemption.requested(done, count)
            if ends or done == stage.num_steps or _due(done, stage.training.checkpoint_every):
                _write(writer, stage, state, pending)
                pending, now = None, time.monotonic()
                writer.write(done, "time", speed(now - start, done - saved, stage.training.batch_size, flops, mesh))
                start, saved = now, done
                writer.sync()  # metrics up to a checkpoint must be as durable as the checkpoint
                checkpoints.save(done, state)
            advance(count)
            if ends or done == stage.num_steps:
                checkpoints.settle()
            if ends:
                logger.warning("stage %s: saved at step %d because this run received SIGTERM.", stage.name, done)
                parallel.wait_for_all("saved")
                raise preemption.Preempted
    return parallel.replicate(state.product, mesh)


def _due(done: int, every: int) -> bool:
    return bool(every) and done % every == 0


def _restore_or_init(stage: Stage, upstream, checkpoints: Checkpoints, key: Key, mesh) -> TrainState:
    make = functools.partial(init_state, stage)
    like = jax.eval_shape(make, key, dict(upstream))
    shardings = state_shardings(stage, like, mesh)
    size = memory.size_of(like) / (mesh.size if stage.training.split_parameters else 1)
    memory.require_fits(
        f"stage {stage.name!r}", size, "Make its network smaller, or split it over devices (training.split_parameters)."
    )
    step = checkpoints.latest()
    if step is None:
        return jax.jit(make, out_shardings=shardings)(key, dict(upstream))
    like = jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), like, shardings)
    return checkpoints.restore(step, like)


def _write(
    writer: MetricWriter, stage: Stage, state: TrainState, pending: tuple[int, Mapping[str, Any]] | None
) -> None:
    """Write the metrics of a dispatch, `pending` as (its last step, metrics), if there is one.

    Raises:
      SbmError: if a metric or the product is not finite; names the first step and value that are not.
    """
    if pending is None:
        return
    step, metrics = pending
    means = jax.device_get(metrics)
    steps, product_is_finite = means.pop("steps"), means.pop("finite")
    means = {name: float(value) for name, value in means.items()}
    writer.write(step, "train", means)
    if product_is_finite and all(map(np.isfinite, means.values())):
        return
    lost = {name: ~np.isfinite(values) for name, values in steps.items() if name not in ("gradients", "gradient_norm")}
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
    lost |= {
        f"the gradient of {name}": ~np.isfinite(norms) for name, norms in zip(names, steps["gradients"].T, strict=True)
    }
    found = [int(np.argmax(flags)) for flags in lost.values() if flags.any()]
    first, what = len(steps["loss"]) - 1, "a mean over steps, or a parameter,"  # if no step's metric does
    if found:
        first = min(found)
        what = next(name for name, flags in lost.items() if flags[first])
    raise SbmError(
        f"stage {stage.name!r}: {what} is not finite at step {step - len(steps['loss']) + first + 1}. The last "
        "checkpoint precedes it and is intact: lower the learning rate or set clip_norm, in a new work directory."
    )
