"""Samplers and guidance with trained networks: coherence and diversity against network evaluations.

    python -m benchmarks.trained_samplers --workdir=runs/quickstart_all

Every sampler draws from the same trained systems of a work directory for the same test digits, and is judged by the
same classifier. Writes one JSON line per row to standard output, and tables at the end. `--out=FILE` keeps the lines,
preceded by one with the command and the versions.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
from absl import app, flags
from rich.console import Console
from rich.table import Table

from sbm_jax import data, experiment, report
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import make_system, read_config
from sbm_jax.judges import Judges
from sbm_jax.training.stages import load_product

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart_all", "A work directory whose training is complete.")
_ONLY = flags.DEFINE_string("only", "", "Run only cases whose label contains this; default: all.")
_EXAMPLES = flags.DEFINE_integer("examples", 300, "Test examples, and unconditional samples, per case.")
_OUT = flags.DEFINE_string("out", "", "A file for the JSON lines.")


class Case(NamedTuple):
    """One row.

    Attributes:
      label: label of the row.
      system: name of the system.
      sampler: sampler options that differ from the config's.
      strength: guidance strength.
    """

    label: str
    system: str
    sampler: dict[str, Any]
    strength: float | None = None


_PAPER = {"solver": "predictor_corrector", "num_steps": 100, "grid": "uniform", "end_time": 1e-3}

SAMPLERS = [
    *(Case(f"SDE-DPM-Solver++ 2M, {n} steps", "sbm_vae", {"num_steps": n}) for n in (5, 10, 20, 40)),
    Case("DPM-Solver++ 2M, 20 steps", "sbm_vae", {"solver": "dpm_solver_pp_2m", "num_steps": 20}),
    Case("5 steps from the Gaussian conditional", "sbm_vae", {"num_steps": 5, "start": "gaussian", "start_time": 0.7}),
    Case("predictor-corrector, 100 steps", "sbm_vae", _PAPER),
    *(
        Case(f"predictor-corrector, 100 steps, one time: {way}", "sbm_vae", {**_PAPER, "conditioning": way})
        for way in ("clean", "replacement", "reference")
    ),
]
GUIDANCE = [
    *(Case(f"marginal, strength {w:g}", "sbm_vae_m", {}, w) for w in (0.0, 0.5, 1.0, 2.0, 4.0)),
    *(Case(f"energy, strength {g:g}", "sbm_vae_c", {}, g) for g in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)),
    *(Case(f"contrastive, strength {w:g}", "sbm_vae_t", {}, w) for w in (0.0, 0.5, 1.0, 2.0, 4.0)),
    *(
        Case(
            f"one time (clean), 100 steps, energy, strength {g:g}", "sbm_vae_c", {**_PAPER, "conditioning": "clean"}, g
        )
        for g in (0.0, 1.0, 3.9)
    ),
]

SHOWN = {
    "evaluations": "sampling/network_evaluations",
    "given rest": "coherence/given_rest",
    "given 1": "coherence/given_1",
    "all agree": "coherence/unconditional_all",
    "rarest digit": "coverage/min",
    "diversity": "diversity/given_1",
    "diverged": "sampling/diverged",
    "samples/s": "sampling/samples_per_second",
}


def _measure(case: Case, config, products, judges: Judges) -> dict[str, Any]:
    sampler = dataclasses.replace(config.sampler, **case.sampler)
    system = make_system(config, case.system)
    metrics = judges.judge(system, products, sampler, config.evaluation, case.strength).metrics
    row = {"label": case.label, "system": case.system, **case.sampler, "strength": case.strength}
    for title, name in SHOWN.items():
        if name in metrics:
            row[title] = metrics[name].value
    return row


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for column in ("label", *SHOWN):
        table.add_column(column, justify="left" if column == "label" else "right")
    for row in rows:
        values = (row.get(column) for column in SHOWN)
        table.add_row(row["label"], *("" if value is None else f"{value:.3g}" for value in values))
    return table


def _main(argv: list[str]) -> None:
    del argv
    absl.logging.set_verbosity(absl.logging.ERROR)  # quietens orbax and tensorflow-datasets
    try:
        _run(Path(_WORKDIR.value))
    except SbmError as error:
        sys.exit(f"error: {error}")


def _run(workdir: Path) -> None:
    config = read_config(workdir)
    evaluation = dataclasses.replace(
        config.evaluation,
        num_examples=_EXAMPLES.value,
        num_unconditional=_EXAMPLES.value,
        num_repeats=1,
        metrics={
            "coherence": {"sets": ("given_rest", "random", "unconditional")},
            "class_shares": {},
            "diversity": {},
            "sampling": {},
        },
    )
    config = dataclasses.replace(config, evaluation=evaluation)
    dataset = data.thinned(data.load(config.data, workdir / "data"), config.data)
    classifiers = experiment.make_classifiers(config, dataset)
    if not classifiers:
        raise SbmError(f"{workdir} has no classifier to judge coherence; use data with labels.")
    chosen = [case for case in [*SAMPLERS, *GUIDANCE] if case.system in config.systems and _ONLY.value in case.label]
    names = {name for case in chosen for name in make_system(config, case.system).stage_names}
    names |= {judge.stage_name for judge in filter(None, [classifiers])}
    products = {name: load_product(name, workdir) for name in sorted(names)}
    trained = experiment.Trained([], classifiers, [], products)
    judges = dataclasses.replace(experiment.make_judges(config, trained, dataset, workdir), cache=None)
    head = {"command": " ".join(["python -m benchmarks.trained_samplers", *sys.argv[1:]]), **report.versions()}
    lines = [json.dumps({**head, "device": report.device()})]
    rows = []
    for case in chosen:
        rows.append(_measure(case, config, products, judges))
        lines.append(json.dumps(rows[-1]))
        print(lines[-1], flush=True)
    if _OUT.value:
        Path(_OUT.value).write_text("\n".join(lines) + "\n", encoding="utf-8")
    labels = {case.label for case in SAMPLERS}
    for title, group in (("Samplers", True), ("Guidance", False)):
        shown = [row for row in rows if (row["label"] in labels) == group]
        if shown:
            Console(width=140).print(_table(title, shown))


if __name__ == "__main__":
    app.run(_main)
