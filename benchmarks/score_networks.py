"""Score networks compared at equal training compute, on the latents of a trained work directory.

    python -m benchmarks.score_networks --workdir=runs/quickstart

Every network is trained on the same latent bank with the same number of floating-point operations, and judged by the
same classifier. The paper's own combination of network, objective, process and sampler is a row of its own; its network
needs latents that make square maps (`configs/quickstart.py:square`). Writes one JSON line per network to standard
output, and a table at the end; `--out=FILE` keeps the lines.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
from absl import app, flags
from rich.console import Console
from rich.table import Table

from benchmarks.flops import flops_per_step
from sbm_jax import experiment, experiment_config, report
from sbm_jax.errors import SbmError
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sde import SDEConfig

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "A work directory whose training is complete.")
_FRACTION = flags.DEFINE_float("fraction", 0.5, "Compute per network, as a fraction of the work directory's own.")
_ONLY = flags.DEFINE_string("only", "", "Run only networks whose label contains this; default: all.")
_EXAMPLES = flags.DEFINE_integer("examples", 100, "Test examples, and unconditional samples, per network.")
_OUT = flags.DEFINE_string("out", "", "A file for the JSON lines.")

_FEW = {"num_steps": 10}
_PAPER_SCORE = {"prediction": "score", "weighting": "noise", "probability_none": 1.0, "sde": SDEConfig("vp", 1.0, 5.0)}
_PAPER_SAMPLER = {
    "solver": "predictor_corrector",
    "num_steps": 100,
    "grid": "uniform",
    "end_time": 1e-3,
    "conditioning": "clean",
}


class Trial(NamedTuple):
    """A network with its training and sampling options.

    Attributes:
      network: the network.
      score: other fields of `ScoreConfig` that differ from the work directory's.
      sampler: sampler options that differ from the work directory's.
    """

    network: ScoreNetworkConfig
    score: dict[str, Any]
    sampler: dict[str, Any]


TRIALS = {
    "transformer 128x4": Trial(ScoreNetworkConfig("transformer", 128, 4), {}, _FEW),
    "mlp 512x4": Trial(ScoreNetworkConfig("mlp", 512, 4), {}, _FEW),
    "mlp 512x4, dropout 0.2": Trial(ScoreNetworkConfig("mlp", 512, 4, dropout=0.2), {}, _FEW),
    "unet 64": Trial(ScoreNetworkConfig("unet", 64), {}, _FEW),
    "paper: unet 64, one time, 200 evaluations": Trial(
        ScoreNetworkConfig("unet", 64, paper_unet=True), _PAPER_SCORE, _PAPER_SAMPLER
    ),
}
SHOWN = ("sampling/network_evaluations", "coherence/given_rest", "coherence/given_1", "coherence/unconditional_all")


def _applied(trial: Trial, config, num_steps: int):
    """Return the experiment of a trial, without rows of single modalities, from which not every network can learn."""
    training = dataclasses.replace(config.score.training, num_steps=num_steps)
    changes = {"network": trial.network, "training": training, "probability_alone": 0.0, **trial.score}
    score = dataclasses.replace(config.score, **changes)
    return dataclasses.replace(config, score=score, sampler=dataclasses.replace(config.sampler, **trial.sampler))


def _run(workdir: Path, config, label: str, trial: Trial, budget: float) -> dict:
    flops = flops_per_step(_applied(trial, config, 1))
    applied = _applied(trial, config, max(1, round(budget / flops)))
    directory = workdir / "score_networks" / "".join(c if c.isalnum() else "_" for c in label)
    shutil.rmtree(directory / "stages" / "score_sbm_vae", ignore_errors=True)
    stages = [*experiment_config.make_system(config, "sbm_vae").latent_space.stage_names, "classifier"]
    if applied.score == config.score:  # already trained
        stages.append("score_sbm_vae")
        shutil.copytree(workdir / "metrics", directory / "metrics", dirs_exist_ok=True)
    for stage in stages:
        shutil.copytree(workdir / "stages" / stage, directory / "stages" / stage, dirs_exist_ok=True)
    shutil.copytree(workdir / "data", directory / "data", dirs_exist_ok=True)
    results = experiment.run(applied, directory)
    metrics = results["systems"]["sbm_vae"]["metrics"]
    return {
        "network": label,
        "gflop_per_step": flops / 1e9,
        "steps": applied.score.training.num_steps,
        "seconds": results["seconds"]["score_sbm_vae"],
        **{name: metrics[name]["value"] for name in SHOWN},
    }


def _main(argv: list[str]) -> None:
    del argv
    absl.logging.set_verbosity(absl.logging.ERROR)  # quietens orbax and tensorflow-datasets
    try:
        workdir = Path(_WORKDIR.value)
        config = experiment_config.read_config(workdir)
        evaluation = dataclasses.replace(
            config.evaluation,
            num_examples=_EXAMPLES.value,
            num_unconditional=_EXAMPLES.value,
            num_repeats=1,
            metrics={
                "coherence": {"sets": ("given_rest", "random", "unconditional")},
                "class_shares": {},
                "sampling": {},
            },
        )
        config = dataclasses.replace(config, systems=("sbm_vae",), evaluation=evaluation)
        own = flops_per_step(config) * config.score.training.num_steps
        rows = []
        head = {"command": " ".join(["python -m benchmarks.score_networks", *sys.argv[1:]]), **report.versions()}
        lines = [json.dumps({**head, "device": report.device()})]
        for label in [label for label in TRIALS if _ONLY.value in label]:
            try:
                rows.append(_run(workdir, config, label, TRIALS[label], _FRACTION.value * own))
            except SbmError as error:
                print(json.dumps({"network": label, "left_out": str(error)}), flush=True)
                continue
            lines.append(json.dumps(rows[-1]))
            print(lines[-1], flush=True)
    except SbmError as error:
        sys.exit(f"error: {error}")
    if _OUT.value:
        Path(_OUT.value).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not rows:
        sys.exit(f"error: no network was trained; --only={_ONLY.value!r} must match one of: {', '.join(TRIALS)}.")
    table = Table(title=f"Same training compute: {_FRACTION.value * own / 1e12:.1f} TFLOP each")
    for name in rows[0]:
        table.add_column(name.rpartition("/")[2])
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    app.run(_main)
