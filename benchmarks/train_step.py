"""Seconds per training step of the multimodal VAEs: forward, backward and Adam, on one batch.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --against=multivae

With `--against=multivae` (PyTorch; `pip install multivae`), MultiVae's models make the same steps with networks of the
same layers: in turn with ours, in one process, with five modalities; and MoPoE with ten modalities in a process for
each package, with its peak memory, where MultiVae makes a single step, its first. MVAE has no random subsets here.
Networks are two dense layers of 256 for each modality of 28x28x3, and the batch size is 256.
"""

import functools
import json
import multiprocessing
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags
from rich.console import Console
from rich.table import Table

from benchmarks.timing import measure, measure_in_turn
from sbm_jax import report
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems import joinings
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

_SYSTEMS = flags.DEFINE_list("systems", ["mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus"], "The methods.")
_BATCH = flags.DEFINE_integer("batch", 256, "Batch size.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Number of timed steps of each.", lower_bound=1)
_LARGE = flags.DEFINE_integer("large", 10, "Modalities of the large MoPoE; 0 skips it.", lower_bound=0)
_LARGE_LATENT = flags.DEFINE_integer("large_latent", 512, "Size of its latent.", lower_bound=1)
_AGAINST = flags.DEFINE_enum("against", None, ["multivae"], "Also time MultiVae, and print ratios.")
_OUT = flags.DEFINE_string("out", None, "A directory for train_step.jsonl.")

NUM_MODALITIES, LATENT_SIZE, SHAPE, WIDTHS = 5, 64, (28, 28, 3), (256, 256)
JOININGS = {cls.name: cls() for cls in (joinings.Mmvae, joinings.Mopoe, joinings.Mvtcae, joinings.MmvaePlus)}
JOININGS["mvae"] = joinings.Mvae(num_subsets=0)

Step = Callable[[], Any]
Row = dict[str, Any]


def make_system(name: str, num_modalities: int, latent_size: int) -> JointPosterior:
    """Return a system with the objective of its paper."""
    modalities = tuple(Modality(f"m{i}", SHAPE, latent_size, "mlp") for i in range(num_modalities))
    network = AutoencoderNetworkConfig(WIDTHS, "float32")
    config = JointPosteriorConfig(TrainingConfig(1, _BATCH.value), network, latent_size)
    return JointPosterior(name, modalities, config, JOININGS[name])


def make_data(system: JointPosterior, batch: int) -> dict[str, np.ndarray]:
    """Return random rows {modality: float32 [B, *shape]}."""
    rng = np.random.default_rng(0)
    return {m.name: rng.random((batch, *m.shape), dtype=np.float32) for m in system.modalities}


def make_step(system: JointPosterior, data: dict[str, np.ndarray]) -> Step:
    """Return a function that makes one training step, and returns the loss when it is done."""
    split = Split(data)
    stage = system.stages(Dataset(split, split, split, {}, {}))[0]
    optimizer = optax.adam(1e-3)
    params = stage.init(jax.random.key(0), {})
    state = [params, optimizer.init(params), jax.random.key(1)]
    batch = jax.device_put(stage.rows({}))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def advance(params, optimizer_state, key, batch):
        key, own = jax.random.split(key)
        (loss, _), gradient = jax.value_and_grad(stage.loss, has_aux=True)(params, {}, own, batch)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state, key, loss

    def step() -> float:
        *state[:], loss = advance(*state, batch)
        return float(loss)

    return step


def make_peer_step(system: JointPosterior, data: dict[str, np.ndarray]) -> Step:
    """Return the same function for MultiVae."""
    from benchmarks import multivae_peer  # PyTorch is not a dependency

    return multivae_peer.make_step(system, data)


RUNNERS = {"sbm_jax": make_step, "multivae": make_peer_step}


def asked_runners() -> list[str]:
    """Return the packages to time."""
    return ["sbm_jax", *([_AGAINST.value] if _AGAINST.value else [])]


def time_in_turn(name: str, num_modalities: int, latent_size: int) -> list[Row]:
    """Return a row for each package, timed in turn in this process."""
    system = make_system(name, num_modalities, latent_size)
    data = make_data(system, _BATCH.value)
    steps = {runner: RUNNERS[runner](system, data) for runner in asked_runners()}
    for step in steps.values():
        step()
        step()
    times = measure_in_turn(steps, _REPEATS.value)
    return [_row(runner, system, times[runner]) for runner in steps]


def time_alone(arguments: list[str], runner: str, name: str, num_modalities: int, latent_size: int) -> Row:
    """Return the row of one package; run it in a process that does nothing else."""
    flags.FLAGS(arguments)
    system = make_system(name, num_modalities, latent_size)
    step = RUNNERS[runner](system, make_data(system, _BATCH.value))
    if runner == "sbm_jax":
        step()  # compiles
    times = measure(step, _REPEATS.value if runner == "sbm_jax" else 1)  # the other's takes minutes
    return {**_row(runner, system, times), "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes, including its code (Linux)."""
    # The peak of `resource.getrusage` includes that of the parent process.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["VmHWM"].split()[0])


def _row(runner: str, system: JointPosterior, times: dict[str, float]) -> Row:
    sizes = {"modalities": len(system.modalities), "latent_size": sum(system.sizes), "batch": _BATCH.value}
    return {"runner": runner, "system": system.name, **sizes, **times}


def print_table(rows: list[Row]) -> None:
    """Print the rows, with the times of other packages as multiples of ours."""
    table = Table(title="Seconds of a training step")
    for column in ("system", "modalities", "package", "seconds", "CPU seconds", "ratio", "CPU ratio", "peak"):
        table.add_column(column)
    ours = {(row["system"], row["modalities"]): row for row in rows if row["runner"] == "sbm_jax"}
    for row in rows:
        reference = ours[row["system"], row["modalities"]]
        ratios = [f"{row[name] / reference[name]:.1f}" for name in ("seconds", "cpu_seconds")]
        peak = f"{row['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in row else ""
        times = f"{row['seconds']:.3f}", f"{row['cpu_seconds']:.3f}"
        table.add_row(row["system"], str(row["modalities"]), row["runner"], *times, *ratios, peak)
    Console().print(table)


def main(_argv: list[str]) -> None:
    """Time every system, print and write each row as it is measured, and print the table."""
    rows, out = [], Path(_OUT.value) / "train_step.jsonl" if _OUT.value else None

    def emit(row: Row) -> None:
        print(json.dumps(row), flush=True)
        if out:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("", encoding="utf-8")
    command = " ".join(["python -m benchmarks.train_step", *map(shlex.quote, sys.argv[1:])])
    emit({"versions": report.versions(), "device": report.device(), "command": command})
    for name in _SYSTEMS.value:
        rows += time_in_turn(name, NUM_MODALITIES, LATENT_SIZE)
        for row in rows[-len(asked_runners()) :]:
            emit(row)
    for runner in asked_runners() if _LARGE.value else ():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            asked = (sys.argv, runner, "mopoe", _LARGE.value, _LARGE_LATENT.value)
            rows.append(pool.apply(time_alone, asked))
        emit(rows[-1])
    print_table(rows)


if __name__ == "__main__":
    app.run(main)
