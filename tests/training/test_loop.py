"""The training loop on a small regression with randomness in its loss, dropout-like, and an upstream stage."""

import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbm_jax import parallel, preemption
from sbm_jax.errors import SbmError
from sbm_jax.lock import writing_to
from sbm_jax.training import loop, profiling
from sbm_jax.training.checkpoints import Checkpoints
from sbm_jax.training.stages import load_product, run_stages
from sbm_jax.training.writers import read_metrics
from sbm_jax.types import OptimizerConfig, Stage, TrainingConfig

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)
TRAINING = TrainingConfig(
    num_steps=20,
    batch_size=8,
    steps_per_dispatch=3,
    checkpoint_every=5,
    validate_every=10,
    optimizer=OptimizerConfig(learning_rate=0.1, warmup_steps=2, ema_decay=0.9, clip_norm=1.0, weight_decay=0.01),
)


def _loss(params, upstream, key, batch):
    noisy = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = jnp.square(noisy @ params["kernel"] + params["bias"] + upstream["shift"]["value"] - batch["y"])
    return error.mean(), {"largest": error.max()}


def _stages(training=TRAINING, extra=None):
    shift = Stage("shift", {"version": 1}, lambda key, upstream: {"value": jnp.float32(0.25)})
    fit = Stage(
        name="fit",
        settings={"learning_rate": training.optimizer.learning_rate, **(extra or {})},
        init=lambda key, upstream: {"kernel": jax.random.normal(key, (3,)), "bias": jnp.zeros(())},
        requires=("shift",),
        training=training,
        loss=_loss,
        rows=lambda upstream: {"x": X, "y": Y},
        validation_rows=lambda upstream: {"x": X[:13], "y": Y[:13]},
    )
    return [shift, fit]


def _run(path, stages=None, **kwargs):
    return run_stages(stages or _stages(), path, seed=0, **kwargs)["fit"]


def _assert_same_bits(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_it_learns_and_writes_metrics(tmp_path):
    training = dataclasses.replace(TRAINING, num_steps=300, checkpoint_every=100)
    product = _run(tmp_path, _stages(training))
    np.testing.assert_allclose(product["kernel"], [1.0, -2.0, 0.5], atol=0.15)
    rows = read_metrics(tmp_path / "metrics" / "fit.jsonl")
    train = [row for row in rows if row["split"] == "train"]
    validation = [row["loss"] for row in rows if row["split"] == "validation"]
    assert train[-1]["step"] == 300
    assert len(validation) == 30
    assert validation[-1] < 0.2 * validation[0]


def test_validation_may_take_the_first_rows_only(tmp_path):
    stage = _stages(dataclasses.replace(TRAINING, num_steps=10, validate_rows=7))[-1]
    some = dataclasses.replace(stage, validation_rows=lambda upstream: {"x": X[:7], "y": Y[:7]})
    losses = []
    for number, one in enumerate((stage, some)):
        _run(tmp_path / str(number), [*_stages(TRAINING)[:-1], one])
        rows = read_metrics(tmp_path / str(number) / "metrics" / "fit.jsonl")
        losses.append([row["loss"] for row in rows if row["split"] == "validation"])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 1


@pytest.mark.parametrize("stop_at", [5, 10, 15])
def test_resumed_equals_unbroken_bit_for_bit(tmp_path, monkeypatch, stop_at):
    whole = _run(tmp_path / "whole")

    class Killed(BaseException):
        pass

    save = Checkpoints.save

    def save_then_die(self, step, state):
        save(self, step, state)
        if step == stop_at:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_then_die)
    with pytest.raises(Killed):
        _run(tmp_path / "broken")
    monkeypatch.undo()
    _assert_same_bits(_run(tmp_path / "broken"), whole)
    assert _untimed_rows(tmp_path / "broken") == _untimed_rows(tmp_path / "whole")


def _untimed_rows(workdir):
    return [row for row in read_metrics(workdir / "metrics" / "fit.jsonl") if row["split"] != "time"]


def test_complete_stages_are_not_run_again(tmp_path, monkeypatch):
    whole = _run(tmp_path)
    monkeypatch.setattr(loop, "make_train_steps", None)
    _assert_same_bits(_run(tmp_path), whole)
    _assert_same_bits(load_product("fit", tmp_path), whole)


def test_one_device_equals_all(tmp_path):
    one = _run(tmp_path / "one", mesh=parallel.data_mesh(jax.devices()[:1]))
    every = _run(tmp_path / "all", mesh=parallel.data_mesh())
    assert parallel.data_mesh().size == jax.device_count() > 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, every)


def test_a_step_equals_pmap(tmp_path):
    """The oracle: `jax.pmap` with a mean over devices, given the same rows and the same random draws."""
    stage = _stages()[1]
    keys = loop.stage_keys(0, "fit")
    upstream = {"shift": {"value": jnp.float32(0.25)}}
    state = loop.init_state(stage, keys.init, upstream)
    indices = np.arange(8, dtype=np.int32)
    batch = {"x": X[:8], "y": Y[:8]}
    noise = 0.1 * jax.random.normal(jax.random.fold_in(keys.steps, 0), (8, 3))

    def loss(params, x, y):
        return jnp.square(x @ params["kernel"] + params["bias"] + 0.25 - y).mean()

    @functools.partial(jax.pmap, axis_name="devices", in_axes=(None, 0, 0))
    def gradient(params, x, y):
        return jax.lax.pmean(jax.grad(loss)(params, x, y), "devices")

    count = jax.device_count()
    per_device = gradient(state.params, (batch["x"] + noise).reshape(count, -1, 3), batch["y"].reshape(count, -1))
    grad = jax.tree.map(lambda g: np.asarray(g)[0], per_device)
    optimizer = loop.make_optimizer(stage.training.optimizer, stage.num_steps)
    updates, _ = optimizer.update(grad, optimizer.init(state.params), state.params)
    expected = optax.apply_updates(state.params, updates)

    mesh = parallel.data_mesh()
    feed = parallel.Feed({"x": X, "y": Y}, mesh)
    args = (*parallel.replicate((state, upstream), mesh), *feed.take(indices[None]))
    after, _ = loop.make_train_steps(stage, feed)(*args, keys.steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.params, expected)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "unfinished"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    whole = _run(tmp_path)
    directory = tmp_path / "stages" / "fit"
    files = sorted((directory / "checkpoints" / "20").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = files[-1].read_bytes()
    if damage == "truncate":
        files[-1].write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        files[-1].write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "delete":
        files[-1].unlink()
    else:
        (directory / "manifests" / "20.json").unlink()
    with pytest.raises(SbmError, match="not complete"):
        load_product("fit", tmp_path)
    _assert_same_bits(_run(tmp_path), whole)
    assert "falling back" in caplog.text


def test_another_config_in_the_same_directory_is_refused(tmp_path):
    _run(tmp_path)
    with pytest.raises(SbmError, match="extra: was None, is 1"):
        _run(tmp_path, _stages(extra={"extra": 1}))
    changed = _stages()
    changed[0] = dataclasses.replace(changed[0], settings={"version": 2})
    with pytest.raises(SbmError, match=r"'shift'.*version: was 1, is 2"):
        _run(tmp_path, changed)


def test_a_damaged_recipe_is_named(tmp_path):
    _run(tmp_path)
    (tmp_path / "stages" / "fit" / "stage.json").write_text("{")
    with pytest.raises(SbmError, match=r"stage.json is damaged"):
        _run(tmp_path)


def test_some_stages(tmp_path):
    with pytest.raises(SbmError, match=r"unknown stage.*Did you mean 'fit'"):
        _run(tmp_path, only=["fits"])
    with pytest.raises(SbmError, match="'shift' is not complete"):
        _run(tmp_path, only=["fit"])
    assert list(run_stages(_stages(), tmp_path, 0, only=["shift"])) == ["shift"]
    _assert_same_bits(_run(tmp_path, only=["fit"]), _run(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("what", "message"), [("loss", "loss is not"), ("gradient", r"the gradient of \['kernel'\] is not")]
)
@pytest.mark.parametrize("bad_step", [0, 13, 14])
def test_a_stage_stops_at_what_is_not_finite_first(tmp_path, what, message, bad_step):
    """A square root at 0 has a value, and no gradient."""
    keys = loop.stage_keys(0, "fit").steps
    bad_key = jax.random.key_data(jax.random.fold_in(keys, bad_step))

    def loss(params, upstream, key, batch):
        value, metrics = _loss(params, upstream, key, batch)
        bad = (jax.random.key_data(key) == bad_key).all()
        if what == "loss":
            return jnp.where(bad, jnp.nan, value), metrics
        return value + jnp.sqrt(jnp.where(bad, 0.0, 1.0) * jnp.square(params["kernel"][0])), metrics

    stages = _stages()
    stages[1] = dataclasses.replace(stages[1], loss=loss, validation_loss=_loss)
    with pytest.raises(SbmError, match=rf"stage 'fit': {message} finite at step {bad_step + 1}\."):
        _run(tmp_path, stages)
    kept = sorted(int(path.name) for path in (tmp_path / "stages" / "fit" / "checkpoints").glob("[0-9]*"))
    assert kept == [step for step in (5, 10) if step <= bad_step]


def test_rows_on_the_host_give_the_same_steps(tmp_path, monkeypatch):
    on_device = _run(tmp_path / "device")
    monkeypatch.setattr(parallel, "_device_memory", lambda mesh: 1.0)
    feed = parallel.Feed({"x": X}, parallel.data_mesh())
    assert feed.on_host
    _, parts = feed.take(np.arange(16).reshape(2, 8))
    np.testing.assert_array_equal(parts["x"], X[:16].reshape(2, 8, 3))
    shapes = {shard.data.shape for shard in parts["x"].addressable_shards}
    assert shapes == {(2, 8 // jax.device_count(), 3)}  # each device has its part
    on_host = _run(tmp_path / "host")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), on_host, on_device)


def test_large_parameters_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 16)
    mesh = parallel.data_mesh()
    shardings = parallel.split_large({"wide": np.zeros((3, 16)), "odd": np.zeros((5, 7)), "small": np.zeros(8)}, mesh)
    assert shardings["wide"].spec == jax.sharding.PartitionSpec(None, "data")
    assert shardings["odd"].is_fully_replicated
    assert shardings["small"].is_fully_replicated
    stages = _stages(dataclasses.replace(TRAINING, split_parameters=True))
    wide = dataclasses.replace(
        stages[1],
        init=lambda key, upstream: {"kernel": jax.random.normal(key, (3,)), "bias": jnp.zeros(16)},
        loss=lambda params, *rest: _loss({**params, "bias": params["bias"].mean()}, *rest),
    )
    whole = dataclasses.replace(wide, training=TRAINING)
    split, kept = (_run(tmp_path / name, [stages[0], stage]) for name, stage in (("split", wide), ("whole", whole)))
    assert split["bias"].is_fully_replicated  # a product is whole
    feed, upstream = parallel.Feed({"x": X, "y": Y}, mesh), {"shift": {"value": jnp.float32(0.25)}}
    state = loop.init_state(wide, jax.random.key(0), upstream)
    state = jax.device_put(state, loop.state_shardings(wide, state, mesh))
    rows, parts = feed.take(np.zeros((2, 8), np.int32))
    after, _ = loop.make_train_steps(wide, feed)(state, upstream, rows, parts, jax.random.key(1))
    assert after.params["bias"].addressable_shards[0].data.shape == (16 // mesh.size,)  # and a state in training is not
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), split, kept)


def test_sigterm_saves_and_the_same_run_goes_on(tmp_path, monkeypatch):
    whole = _run(tmp_path / "whole")
    requested = preemption.requested

    def told_at_six(done, count):
        if done == 6 and not (tmp_path / "told").exists():
            (tmp_path / "told").touch()
            signal.raise_signal(signal.SIGTERM)
        return requested(done, count)

    monkeypatch.setattr(preemption, "requested", told_at_six)
    with pytest.raises(preemption.Preempted), preemption.listening():
        _run(tmp_path / "told_to_end")
    steps = [path.name for path in (tmp_path / "told_to_end" / "stages" / "fit" / "manifests").iterdir()]
    assert "6.json" in steps
    _assert_same_bits(_run(tmp_path / "told_to_end"), whole)


@pytest.mark.parametrize(("per_dispatch", "asked"), [(1, 5), (4, 5), (10, 5), (25, 2), (50, 1)])
def test_processes_ask_each_other_every_ten_steps_or_dispatch(monkeypatch, per_dispatch, asked):
    told = []

    def gather(flag):
        told.append(flag)
        return np.array([flag, len(told) == asked])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(preemption.multihost_utils, "process_allgather", gather)
    answers = [preemption.requested(done, per_dispatch) for done in range(per_dispatch, 51, per_dispatch)]
    assert len(told) == asked - (50 % per_dispatch > 0)
    assert not any(answers[:-1])
    assert answers[-1] == (50 % per_dispatch == 0)


def test_outside_of_training_sigterm_ends_at_once():
    with pytest.raises(preemption.Preempted), preemption.listening():
        signal.raise_signal(signal.SIGTERM)


def test_a_work_directory_has_one_writer(tmp_path):
    with writing_to(tmp_path), pytest.raises(SbmError, match=rf"another run \(process {os.getpid()} on"):
        writing_to(tmp_path).__enter__()
    with writing_to(tmp_path):
        pass


def test_speed_is_written(tmp_path):
    _run(tmp_path)
    rows = [row for row in read_metrics(tmp_path / "metrics" / "fit.jsonl") if row["split"] == "time"]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    for row in rows:
        assert row["examples_per_second"] == pytest.approx(8 / row["seconds_per_step"])
        assert row["peak_memory_bytes"] > 2**20
        assert "model_flop_utilisation" not in row  # the peak of this machine is not known


def test_utilisation_is_the_share_of_a_known_peak(monkeypatch):
    monkeypatch.setattr(profiling, "peak_flops", lambda device: 1e9)
    stage, mesh = _stages()[1], parallel.data_mesh()
    feed = parallel.Feed({"x": X, "y": Y}, mesh)
    upstream = {"shift": {"value": jnp.float32(0.25)}}
    state = loop.init_state(stage, jax.random.key(0), upstream)
    steps, key = loop.make_train_steps(stage, feed), jax.random.key(1)
    counts = [
        profiling.model_flops(steps, state, upstream, *feed.take(np.zeros((k, 8), np.int32)), key) for k in (1, 4)
    ]
    assert counts == [2 * 8 * 3 * 2] * 2  # of one step: a product with the parameters, and one for their gradient
    found = profiling.speed(2.0, 10, 8, 4e8, mesh)
    assert found["model_flop_utilisation"] == pytest.approx(4e8 * 10 / (2.0 * 1e9 * mesh.size))


def test_products_are_counted_as_the_program_says_them():
    image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def function(a, b, image, kernel):
        found, _ = jax.lax.scan(lambda c, _: (jax.checkpoint(lambda c: c @ b)(c), None), a, length=4)
        conv = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return found.sum() + conv.sum() + jax.lax.cond(a[0, 0] > 0, lambda: (a @ b).sum(), lambda: 0.0)

    arguments = jnp.zeros((6, 7)), jnp.zeros((7, 7)), image, kernel
    expected = 5 * 2 * 6 * 7 * 7 + 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    assert profiling.product_flops(jax.make_jaxpr(jax.jit(function))(*arguments).jaxpr) == expected


def test_a_profile_is_a_trace(tmp_path):
    run_stages(_stages(), tmp_path / "run", seed=0, profile_dir=tmp_path / "profile")
    assert list((tmp_path / "profile" / "fit").rglob("*.xplane.pb"))


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("sbm_jax.training.checkpoints.shutil.disk_usage", lambda path: usage)
    with pytest.raises(SbmError, match=r"the disk of .* is full"):
        _run(tmp_path)


def test_uneven_batches_are_refused(tmp_path):
    with pytest.raises(SbmError, match=f"not a multiple of the {jax.device_count()} devices"):
        _run(tmp_path, _stages(dataclasses.replace(TRAINING, batch_size=13)))


def test_metrics_survive_a_line_cut_short(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
