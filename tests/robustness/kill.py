"""Runs that are killed again and again end with the same bits as one that is not.

    python -m tests.robustness.kill [--kills=20] [--seed=0] [--directory=DIR] [--config=configs/quickstart.py:smoke ...]

Without a config, that of `tests/robustness/tiny.py`; further options are those of `sbm_jax.main`. An unbroken run is
made first. Others are killed, by SIGKILL and SIGTERM in turn, at a random moment of each of their parts (reading data,
every stage, evaluation and report), and started again each time, until as many kills as asked for are done. Then all
products must be equal in every bit, and all metrics of training and numbers of `results.json` but those that tell a
time.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from sbm_jax.preemption import RESUME
from sbm_jax.training.stages import load_product
from sbm_jax.training.writers import read_metrics

ROOT = Path(__file__).parents[2]
TIMES = ("sampling/samples_per_second", "training/seconds")


def write_data(directory: Path) -> None:
    """Write two vectors and a picture that show one of four classes."""
    rng = np.random.default_rng(0)
    means = {name: rng.normal(size=(4, *shape)) for name, shape in {"a": (5,), "b": (6,), "c": (4, 4, 1)}.items()}
    directory.mkdir(parents=True, exist_ok=True)
    for split, count in {"train": 200, "validation": 32, "test": 30}.items():
        labels = rng.integers(0, 4, count)
        data = {
            name: (m[labels] + 0.3 * rng.normal(size=(count, *m.shape[1:]))).astype("f4") for name, m in means.items()
        }
        np.savez(directory / f"{split}.npz", label=labels, **data)


def tiny(data: Path) -> list[str]:
    """Return the option that names the small config, on the data in a directory."""
    return [f"--config={ROOT / 'tests/robustness/tiny.py'}:{data}"]


def command(options: list[str], workdir: Path) -> list[str]:
    """Return the command of a run."""
    return [sys.executable, "-m", "sbm_jax.main", *options, f"--workdir={workdir}"]


def parts(workdir: Path, stages: list[str]) -> dict[str, Path]:
    """Return, for each part of a run in their order, the file that is there once it has begun."""
    begun = {f"stage {name}": workdir / "stages" / name / "stage.json" for name in stages}
    return {"data": workdir / "lock", **begun, "evaluation": workdir / "config.json"}


def run_to_the_end(options: list[str], workdir: Path) -> dict[str, float]:
    """Run unbroken, and return the seconds of each part."""
    process = subprocess.Popen(command(options, workdir), cwd=ROOT, stdout=subprocess.DEVNULL)
    if process.wait():
        raise SystemExit(f"the run in {workdir} failed with status {process.returncode}")
    stages = [path.name for path in sorted((workdir / "stages").iterdir(), key=lambda p: _written(p / "stage.json"))]
    began = [_written(path) for path in parts(workdir, stages).values()]
    ends = [*began[1:], _written(workdir / "report" / "index.html")]
    return {part: end - start for part, start, end in zip(parts(workdir, stages), began, ends, strict=True)}


def _written(path: Path) -> float:
    return path.stat().st_mtime


def run_and_kill(options: list[str], workdir: Path, marker: Path, delay: float, number: int) -> bool:
    """Run until so many seconds after a file is there, and kill; False if the run has ended before."""
    listens = not marker.exists()  # else it may be killed before it has begun
    process = subprocess.Popen(command(options, workdir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not marker.exists() and process.poll() is None:
        time.sleep(0.005)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    message = process.communicate()[1].decode()
    allowed = (0, RESUME) if listens and number == signal.SIGTERM else (0, RESUME, -number)
    if process.returncode not in allowed:
        raise SystemExit(f"after signal {number} the run ended with status {process.returncode}:\n{message}")
    return process.returncode != 0


def numbers(workdir: Path) -> dict:
    """Return all numbers of a run that do not tell a time."""
    systems = json.loads((workdir / "results.json").read_text(encoding="utf-8"))["systems"]
    return {
        name: {metric: value for metric, value in system["metrics"].items() if metric not in TIMES}
        for name, system in systems.items()
    }


def differences(one: Path, other: Path, stages: list[str]) -> list[str]:
    """Return what differs between two finished work directories."""
    found = []
    for stage in stages:
        products = [jax.tree.leaves(load_product(stage, workdir)) for workdir in (one, other)]
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*products, strict=True)):
            found.append(f"the product of {stage}")
        if _untimed_rows(stage, one) != _untimed_rows(stage, other):
            found.append(f"a metric of training {stage}")
    return [*found, *(["results.json"] if numbers(one) != numbers(other) else [])]


def _untimed_rows(stage: str, workdir: Path) -> list[dict]:
    return [row for row in read_metrics(workdir / "metrics" / f"{stage}.jsonl") if row["split"] != "time"]


def main(kills: int, seed: int, directory: Path, options: list[str]) -> list[str]:
    """Run the test with these options of `sbm_jax.main`, and return what differs, one line for each."""
    rng, done, runs, found = random.Random(seed), 0, 0, []
    whole = directory / "whole"
    if not any(option.startswith("--config=") for option in options):
        write_data(directory / "data")
        options = [*tiny(directory / "data"), *options]
    seconds = run_to_the_end(options, whole)
    stages = [part.removeprefix("stage ") for part in seconds if part.startswith("stage ")]
    while done < kills:
        workdir, runs = directory / f"broken_{runs}", runs + 1
        # All parts in their order, or as many as are left to do, at random.
        chosen = sorted(rng.sample(range(len(seconds)), min(len(seconds), kills - done)))
        for index in chosen:
            part = list(seconds)[index]
            number = (signal.SIGKILL, signal.SIGTERM)[(index + runs) % 2]  # every part meets both, in several runs
            delay = rng.uniform(0.0, seconds[part])
            if run_and_kill(options, workdir, parts(workdir, stages)[part], delay, number):
                print(f"{signal.Signals(number).name} {delay:.2f} s after the begin of: {part}", flush=True)
                done += 1
            else:
                print(f"ended by itself before {signal.Signals(number).name} in: {part}", flush=True)
        run_to_the_end(options, workdir)
        found += [f"{workdir.name}: {what} differs" for what in differences(whole, workdir, stages)]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path)
    own, others = parser.parse_known_args()
    result = main(own.kills, own.seed, own.directory or Path(tempfile.mkdtemp()), others)
    print("\n".join(result) or f"{own.kills} kills: the same bits")
    sys.exit(bool(result))
