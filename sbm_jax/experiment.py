"""The job: data, stages in order, generation, evaluation, report."""

import dataclasses
import functools
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sbm_jax import data, report
from sbm_jax.config import build, plain
from sbm_jax.data import DataConfig
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import Evaluation, EvaluationConfig, check_size, evaluate
from sbm_jax.progress import progress_bar
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import write_atomically
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.systems.sbm import Sbm, SbmConfig, ScoreConfig
from sbm_jax.systems.sbm_contrastive import ContrastiveConfig, SbmContrastive
from sbm_jax.systems.sbm_energy import EnergyConfig, SbmEnergy
from sbm_jax.systems.unimodal import AutoencoderConfig
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
      energy: the energy model of the ``_c`` systems; None without them.
      contrastive: the encoders of the ``_t`` systems; None without them.
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
    energy: EnergyConfig | None = None
    contrastive: ContrastiveConfig | None = None
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


def _sbm(name: str) -> Callable[[ExperimentConfig], System]:
    """Return what makes `sbm_{vae, rae}`, with energy (`_c`) or contrastive (`_t`) guidance or none."""
    _, kind, *suffix = name.split("_")

    def make(config: ExperimentConfig) -> System:
        parts = SbmConfig(config.autoencoder, config.score)
        common = (name, config.modalities, parts, config.seed, kind == "rae")
        if suffix == ["c"]:
            return SbmEnergy(*common, energy=config.energy)
        if suffix == ["t"]:
            return SbmContrastive(*common, contrastive=config.contrastive)
        return Sbm(*common)

    return make


SYSTEMS: dict[str, Callable[[ExperimentConfig], System]] = {
    name: _sbm(name) for name in ("sbm_vae", "sbm_rae", "sbm_vae_c", "sbm_rae_c", "sbm_vae_t", "sbm_rae_t")
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
    classifiers = make_classifiers(config, dataset)
    all_stages = _all_stages(systems, classifiers, dataset)
    products = run_stages(all_stages, workdir, config.seed, stages)
    write_atomically(workdir / "config.json", json.dumps(plain(config), indent=1))
    if stages is not None:
        return {}

    evaluations = {system.name: judge(system, products, classifiers, dataset, config) for system in systems}
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


def make_classifiers(config: ExperimentConfig, dataset: Dataset) -> Classifiers | None:
    """Return the judges of coherence, or None where the config or the data have none."""
    if config.classifier is None or dataset.num_classes is None:
        return None
    return Classifiers(config.modalities, dataset.num_classes, config.classifier, config.seed)


def _all_stages(systems: Iterable[System], classifiers: Classifiers | None, dataset: Dataset) -> list[Stage]:
    """Return the stages of all systems, those that several share once."""
    stages = {stage.name: stage for system in systems for stage in system.stages(dataset)}
    if classifiers is not None:
        stages[classifiers.stage_name] = classifiers.stage(dataset)
    return list(stages.values())


def make_generate(system: System, products: Mapping[str, Params], options: SamplerOptions):
    """Return the compiled `(key, data, observed, num_samples, strength=None) -> Generated`.

    Where at least half of the modalities are observed in all rows, a network need not run on all: the largest number
    that is not observed, rounded up to a power of two, is a static argument. A strength, a number or one for each row,
    is a traced one, and given to the function as an array of rows: none of its values or forms compiles again.
    """
    compiled = jax.jit(
        lambda products, key, data, observed, strength, num_samples, num_free: system.generate(
            products, key, data, observed, options, num_samples, strength=strength, num_free=num_free
        ),
        static_argnames=("num_samples", "num_free"),
    )
    used = {name: products[name] for name in system.stage_names}

    def generate(key, data, observed, num_samples, strength=None):
        given = [modality.name in data for modality in system.modalities]
        observed = np.asarray(observed, bool)
        most_free = int(np.max(np.sum(~(observed & given), axis=-1)))
        if strength is not None and np.ndim(strength) == 0:
            num_rows = len(next(iter(data.values()))) if data else len(np.atleast_2d(observed))
            strength = np.full(num_rows, strength, np.float32)
        num_free = 1 << max(most_free - 1, 0).bit_length()
        num_free = num_free if 2 * num_free <= len(system.modalities) else None
        return compiled(used, key, data, observed, strength, num_samples=num_samples, num_free=num_free)

    return generate


def judge(
    system: System,
    products: Mapping[str, Params],
    classifiers: Classifiers | None,
    dataset: Dataset,
    config: ExperimentConfig,
    strength: float | None = None,
) -> Evaluation:
    """Return what is measured of one trained system on the test data.

    Args:
      system: the system.
      products: the products of its stages and of the classifiers', by stage name.
      classifiers: the judges of coherence, or None.
      dataset: the data.
      config: the experiment, of which the sampler and the evaluation are used.
      strength: of the guidance; None for that of the config.
    """
    reconstruct = jax.jit(system.reconstruct)
    used = {name: products[name] for name in system.stage_names}
    return evaluate(
        functools.partial(make_generate(system, products, config.sampler), strength=strength),
        dataset.test,
        [modality.name for modality in config.modalities],
        jax.random.fold_in(jax.random.key(config.seed), 2),
        config.evaluation,
        classifier_fn=classifiers.predict_fn(products[classifiers.stage_name]) if classifiers else None,
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
