"""The job: data, stages in order, generation, evaluation, report."""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from sbm_jax import data, report
from sbm_jax.config import build, plain
from sbm_jax.data import DataConfig
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import Evaluation, EvaluationConfig, check_size, evaluate
from sbm_jax.progress import progress_bar
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import write_atomically
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.systems.sbm import AutoencoderConfig, Sbm, SbmConfig, ScoreConfig
from sbm_jax.training.loop import run_stages
from sbm_jax.training.writers import read_metrics
from sbm_jax.types import Dataset, Modality, Params, Stage, System

# MARK: Configuration


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything a run depends on; the fields of the files in `configs/`.

    Attributes:
      name: shown in the report.
      seed: the seed of every random draw.
      systems: the rows of the results table, keys of `SYSTEMS`.
      modalities: the parts of a data point.
      data: where the data come from.
      autoencoder: stage I.
      score: stage II.
      classifier: the judge of coherence; None for data without labels.
      sampler: see `sampling.SamplerOptions`.
      evaluation: see `evaluation.EvaluationConfig`.
    """

    name: str
    systems: tuple[str, ...]
    modalities: tuple[Modality, ...]
    data: DataConfig
    autoencoder: AutoencoderConfig
    score: ScoreConfig
    sampler: SamplerOptions
    evaluation: EvaluationConfig
    classifier: ClassifierConfig | None = None
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, "config.seed", self.seed, "0 or more")
        require(bool(self.systems), "config.systems", self.systems, f"one or more of {', '.join(SYSTEMS)}")
        for name in self.systems:
            if name not in SYSTEMS:
                raise unknown("system (config.systems)", name, SYSTEMS)
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names) or not names:
            raise SbmError(f"config.modalities must have at least one modality, each with its own name, not {names}.")


def _sbm(name: str, regularised: bool) -> Callable[[ExperimentConfig], System]:
    def make(config: ExperimentConfig) -> System:
        parts = SbmConfig(config.autoencoder, config.score)
        return Sbm(name, config.modalities, parts, config.seed, regularised)

    return make


SYSTEMS: dict[str, Callable[[ExperimentConfig], System]] = {
    "sbm_vae": _sbm("sbm_vae", regularised=False),
    "sbm_rae": _sbm("sbm_rae", regularised=True),
}


def parse_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Return the checked form of a `ConfigDict` or of the JSON that a work directory keeps."""
    return build(ExperimentConfig, values)


def read_config(workdir: Path) -> ExperimentConfig:
    """Return the config that a finished work directory keeps.

    Raises:
      SbmError: if there is none, or it is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise SbmError(f"{workdir} holds no finished run: {path} does not exist. Train it with python -m sbm_jax.main.")
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SbmError(f"{path} is damaged ({error}); run the training command again to rewrite it.") from error


# MARK: The job


def run(config: ExperimentConfig, workdir: Path, stages: Iterable[str] | None = None) -> dict[str, Any]:
    """Train what is not trained yet, evaluate, and write results and report.

    Args:
      config: the experiment.
      workdir: where everything is kept; made if it does not exist.
      stages: names of the training stages to run, without evaluation; None runs everything.

    Returns:
      The content of `results.json`, or {} where only stages were asked for.

    Raises:
      SbmError: on anything that the user can mend.
    """
    start = time.monotonic()
    prepare(workdir)
    systems = [SYSTEMS[name](config) for name in config.systems]
    for system in systems:
        system.check(config.sampler)
    dataset = data.load(config.data, workdir / "data")
    data.check(dataset, config.modalities)
    check_size(config.evaluation, dataset.test)
    judge = _classifiers(config, dataset)
    all_stages = _all_stages(systems, judge, dataset)
    products = run_stages(all_stages, workdir, config.seed, stages)
    write_atomically(workdir / "config.json", json.dumps(plain(config), indent=1))
    if stages is not None:
        return {}

    evaluations = {system.name: _evaluate(system, products, judge, dataset, config) for system in systems}
    results = {
        "name": config.name,
        "systems": {name: _as_result(evaluation) for name, evaluation in evaluations.items()},
        "config": plain(config),
        "versions": report.versions(),
        "device": report.device(),
        "command": " ".join(["python -m sbm_jax.main", *map(shlex.quote, sys.argv[1:])]),
        "seconds": {**_stage_seconds(all_stages, workdir), "this run": time.monotonic() - start},
    }
    report.write_results(workdir / "results.json", results)
    curves = {stage.name: read_metrics(workdir / "metrics" / f"{stage.name}.jsonl") for stage in all_stages}
    figures = {name: evaluation.figures for name, evaluation in evaluations.items()}
    page = report.write_report(workdir, results, figures, curves)
    report.print_table(results)
    print(f"Results: {workdir / 'results.json'}\nReport:  {page}")
    return results


def prepare(workdir: Path) -> None:
    """Make the work directory and check that it can be written to.

    Raises:
      SbmError: if it can not.
    """
    probe = workdir / ".writable"
    write_atomically(probe, "written to find out whether it can be\n")
    probe.unlink()


def _classifiers(config: ExperimentConfig, dataset: Dataset) -> Classifiers | None:
    if config.classifier is None or dataset.num_classes is None:
        return None
    return Classifiers(config.modalities, dataset.num_classes, config.classifier, config.seed)


def _all_stages(systems: Iterable[System], judge: Classifiers | None, dataset: Dataset) -> list[Stage]:
    """Return the stages of all systems, those that several share once."""
    stages = {stage.name: stage for system in systems for stage in system.stages(dataset)}
    if judge is not None:
        stages[judge.stage_name] = judge.stage(dataset)
    return list(stages.values())


def make_generate(system: System, products: Mapping[str, Params], options: SamplerOptions):
    """Return the compiled `(key, data, observed, num_samples) -> Generated`."""
    compiled = jax.jit(
        lambda products, key, data, observed, num_samples: system.generate(
            products, key, data, observed, options, num_samples
        ),
        static_argnames="num_samples",
    )
    used = {name: products[name] for name in system.stage_names}

    def generate(key, data, observed, num_samples):
        return compiled(used, key, data, observed, num_samples)

    return generate


def _evaluate(system, products, judge: Classifiers | None, dataset: Dataset, config: ExperimentConfig) -> Evaluation:
    reconstruct = jax.jit(system.reconstruct)
    used = {name: products[name] for name in system.stage_names}
    return evaluate(
        make_generate(system, products, config.sampler),
        dataset.test,
        [modality.name for modality in config.modalities],
        jax.random.fold_in(jax.random.key(config.seed), 2),
        config.evaluation,
        classifier_fn=judge.predict_fn(products[judge.stage_name]) if judge else None,
        num_classes=dataset.num_classes,
        reconstruct_fn=lambda batch: reconstruct(used, batch),
        progress=lambda total: progress_bar(f"evaluate {system.name}", total, "batches"),
    )


def _as_result(evaluation: Evaluation) -> dict[str, Any]:
    metrics = {name: estimate._asdict() for name, estimate in evaluation.metrics.items()}
    return {"metrics": metrics, "not_available": evaluation.not_available}


def _stage_seconds(stages: Iterable[Stage], workdir: Path) -> dict[str, float]:
    """Return the seconds that each stage took, over all runs that worked on it."""
    seconds = {}
    for stage in stages:
        rows = read_metrics(workdir / "metrics" / f"{stage.name}.jsonl")
        if rows:
            seconds[stage.name] = sum(row["seconds"] for row in rows if row["split"] == "time")
    return seconds
