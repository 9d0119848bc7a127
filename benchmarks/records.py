"""Training from disk against training from memory: steps per second and the peak memory of each.

    python -m benchmarks.records
    python -m benchmarks.records --rows=5000 --size=32 --batch=16 --steps=8

Random images are written as records, in parts. Then the training loop trains the autoencoder with the paper's networks
on them, each time in a process of its own: from memory, which holds all rows, and from disk, in turn, `--repeats`
times. Each prints one line of JSON; the last line is the ratio of the medians. Memory other than rows, such as
activations, grows with the batch.
"""

import json
import multiprocessing
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from sbm_jax.data.records import RecordsConfig, load_records
from sbm_jax.data.write_records import write_records
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training.stages import run_stages
from sbm_jax.training.writers import read_metrics
from sbm_jax.types import Modality, Split, TrainingConfig

_ROWS = flags.DEFINE_integer("rows", 200_000, "Training rows.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 64, "Pixels along each side.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 64, "Batch size.", lower_bound=1)
_STEPS = flags.DEFINE_integer(
    "steps", 20, "Timed steps, after as many untimed ones that include compilation.", lower_bound=1
)
_WIDTHS = flags.DEFINE_list("widths", ["64", "128", "256"], "Channels of the network.")
_REPEATS = flags.DEFINE_integer("repeats", 2, "Number of runs of each.", lower_bound=1)
_DIRECTORY = flags.DEFINE_string("directory", None, "Where to write records; default: a temporary directory.")

PART = 1000  # rows
SOURCES = ("memory", "disk")


def images(num_rows: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield random images uint8 [n, size, size, 3], in parts of at most `PART` rows."""
    rng = np.random.default_rng(0)
    for start in range(0, num_rows, PART):
        shape = (min(PART, num_rows - start), size, size, 3)
        yield {"image": rng.integers(0, 256, shape, dtype=np.uint8)}


def in_memory(split: Split) -> Split:
    """Read the rows of a split into memory, in parts."""
    first = split.take(np.arange(1)).data["image"]
    rows = np.empty((len(split), *first.shape[1:]), first.dtype)
    for start in range(0, len(rows), PART):
        indices = np.arange(start, min(start + PART, len(rows)))
        rows[indices] = split.take(indices).data["image"]
    return Split({"image": rows}, None)


def train(source: str, records: str, batch: int, steps: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """Train for a few steps in this process, and return its speed and peak memory."""
    dataset = load_records(RecordsConfig(records), Path(records))
    if source == "memory":
        dataset = dataset._replace(train=in_memory(dataset.train))
    modality = Modality("image", dataset.train.data["image"].shape[1:], 64)
    training = TrainingConfig(2 * steps, batch, checkpoint_every=steps)
    space = LatentSpace((modality,), AutoencoderConfig(training, AutoencoderNetworkConfig(widths)))
    stage = space.stages(dataset)[0]
    with tempfile.TemporaryDirectory() as workdir:
        run_stages([stage], Path(workdir), seed=0)
        times = [
            row for row in read_metrics(Path(workdir) / "metrics" / f"{stage.name}.jsonl") if row["split"] == "time"
        ]
    return {
        "source": source,
        "rows": len(dataset.train),
        "row_bytes": int(np.prod(modality.shape)),
        "batch": batch,
        "steps_per_second": 1 / times[-1]["seconds_per_step"],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(argv: list[str]) -> None:
    """Write the records, and train from memory and from disk."""
    del argv
    with tempfile.TemporaryDirectory(dir=_DIRECTORY.value) as records:
        for name, num_rows in (("train", _ROWS.value), ("validation", _BATCH.value), ("test", _BATCH.value)):
            write_records(Path(records), name, images(num_rows, _SIZE.value))
        widths, speeds = tuple(map(int, _WIDTHS.value)), {source: [] for source in SOURCES}
        for source in SOURCES * _REPEATS.value:
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # a new process, so that its memory is its own
                row = pool.apply(train, (source, records, _BATCH.value, _STEPS.value, widths))
            speeds[source].append(row["steps_per_second"])
            print(json.dumps(row), flush=True)
    memory, disk = (float(np.median(speeds[source])) for source in SOURCES)
    print(json.dumps({"disk_over_memory": disk / memory}), flush=True)


if __name__ == "__main__":
    app.run(main)
