"""Runs an experiment: data, training stages, generation, evaluation, report."""

import contextlib
import dataclasses
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sbm_jax import data, parallel, pretrained_judges, report
from sbm_jax.config import plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import Estimate, Evaluation, check_data, check_metrics, check_size
from sbm_jax.experiment_config import ExperimentConfig, Variation, apply_changes, make_system, refuse_earlier
from sbm_jax.formats import completed, is_complete, make_format
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.judges import Judges, check_weights, weights_path
from sbm_jax.lock import writing_to
from sbm_jax.storage import user_path, write_atomically
from sbm_jax.system import System
from sbm_jax.systems.classifier import Classifiers
from sbm_jax.systems.matcher import Matcher
from sbm_jax.systems.readers import Reader
from sbm_jax.training.stages import run_stages
from sbm_jax.training.writers import read_metrics
from sbm_jax.types import Dataset, Modality, Params, Stage

logger = logging.getLogger(__name__)


def run(
    config: ExperimentConfig,
    workdir: str | os.PathLike[str],
    stages: Iterable[str] | None = None,
    *,
    dataset: Dataset | None = None,
    command: str = "",
    profile: bool = False,
) -> dict[str, Any]:
    """Train what is not trained yet, evaluate, and write the results and the report.

    Stages and evaluations that are complete in the work directory are read back. Results and report are written after
    each part, and list what is still to come.

    Args:
      config: the experiment.
      workdir: where everything is kept; created if it does not exist.
      stages: names of the training stages to run, without evaluation and variations; None runs everything.
      dataset: the data, in their raw form (see `types.FormatConfig`); None loads what the config names.
      command: the call to show in the report; "" for the command line.
      profile: write traces of some steps of each stage to ``<workdir>/profile``.

    Returns:
      The content of `results.json`, or {} if `stages` is given.

    Raises:
      SbmError: on anything that the user can fix.
    """
    start = time.monotonic()
    if not isinstance(config, ExperimentConfig):
        raise SbmError(f"config is of type {type(config).__name__}; expected an ExperimentConfig, from parse_config.")
    if not isinstance(workdir, (str, os.PathLike)):
        raise SbmError(f"workdir is {workdir!r}; expected the path of a directory.")
    if isinstance(stages, str) or not isinstance(stages, (Iterable, type(None))):
        raise SbmError(f"stages is {stages!r}; expected a list of names, or None for all.")
    workdir = user_path(workdir, "workdir")
    refuse_earlier(workdir)
    places = [f"{variation.study}_{variation.value}" for variation in config.variations]
    require(len({*places}) == len(places), "config.variations", places, "each study and value once")
    incomplete = [modality.name for modality in config.modalities if not is_complete(modality)]
    varied = [] if incomplete else _checked(config)
    with contextlib.ExitStack() as held:
        if parallel.is_main():
            prepare(workdir)
            held.enter_context(writing_to(workdir))
        if incomplete:
            dataset = _load(config, workdir) if dataset is None else dataset
            config = _completed(config, dataset)
            varied = _checked(config)
        command = command or " ".join(["python -m sbm_jax.main", *map(shlex.quote, sys.argv[1:])])
        traces = workdir / "profile" if profile else None
        results = _run(config, varied, workdir, dataset, stages, traces, start, command)
        parallel.wait_for_all("the report is written")  # a process that exits earlier would end the job
        return results


def _checked(config: ExperimentConfig) -> list[ExperimentConfig]:
    """Check the experiment's config and those of all variations; return the latter."""
    varied = [apply_changes(config, variation.changes) for variation in config.variations]
    for one in (config, *varied):
        check(one)
    return varied


def _load(config: ExperimentConfig, workdir: Path) -> Dataset:
    with parallel.main_first("data"):  # the others find what it has prepared
        return data.load(config.data, workdir / "data", [modality.name for modality in config.modalities])


def _completed(config: ExperimentConfig, dataset: Dataset) -> ExperimentConfig:
    """Return the config with what its modalities take from the data, such as a vocabulary.

    Raises:
      SbmError: if the data do not determine it, or lack a modality.
    """
    found = []
    for modality in config.modalities:
        if not is_complete(modality):
            if modality.name not in dataset.train.data:
                raise unknown("modality (config.modalities) of the data:", modality.name, dataset.train.data)
            modality = completed(modality, np.asarray(dataset.train.data[modality.name]))
        found.append(modality)
    return dataclasses.replace(config, modalities=tuple(found))


def _run(
    config: ExperimentConfig,
    varied: list[ExperimentConfig],
    workdir: Path,
    dataset: Dataset | None,
    stages: Iterable[str] | None,
    profile_dir: Path | None,
    start: float,
    command: str,
) -> dict[str, Any]:
    dataset = _load(config, workdir) if dataset is None else dataset
    if not (workdir / "lock").is_file():
        raise SbmError(f"this process does not see {workdir} as the first one left it. {parallel.SHARED}")
    whole = data.check(dataset, config.modalities)
    dataset, *varied_data = [data.thinned(whole, one.data) for one in (config, *varied)]
    if config.classifier is not None and not dataset.num_classes:
        logger.warning(
            "the config has a classifier, but the data have no labels: coherence cannot be measured. Add labels, or "
            "leave the classifier out."
        )
    for one in (config, *varied):
        check_size(one.evaluation, dataset.test)
        check_data(one.evaluation, dataset.test)
    main = _train(config, dataset, workdir, None, stages, profile_dir)
    if parallel.is_main():
        write_atomically(workdir / "config.json", json.dumps(plain(config), indent=1))
    if stages is not None:
        return {}

    judges = make_judges(config, main, dataset, workdir)
    results = {
        "name": config.name,
        "data": {"metrics": _as_metrics(judges.real(config.evaluation))},
        "config": plain(config),
        "versions": report.versions(),
        "device": report.device(),
        "command": command,
        "published": config.published,
    }
    evaluations = _judge(config, main, judges)
    results["systems"] = _as_results(evaluations)
    for system in main.systems:
        results["systems"][system.name]["metrics"] |= _training_seconds(system, main.stages, workdir)
    _add_warnings(results["systems"], main, workdir)
    results["variations"] = []
    figures = {name: with_texts(evaluation.figures, config.modalities) for name, evaluation in evaluations.items()}
    curves = {stage.name: _read_metrics(stage, workdir) for stage in main.stages}
    for number in range(len(varied) + 1):
        if number:
            variation = config.variations[number - 1]
            own = varied[number - 1], varied_data[number - 1]
            results["variations"].append(_vary(variation, *own, workdir, judges, profile_dir))
        results["to_come"] = [dataclasses.asdict(variation) for variation in config.variations[number:]]
        results["seconds"] = {**_stage_seconds(main.stages, workdir), "this run": time.monotonic() - start}
        if parallel.is_main():
            report.write_results(workdir / "results.json", results)
            page = report.write_report(workdir, results, figures, curves)
    if parallel.is_main():
        report.print_table(results)
        print(f"Results: {workdir / 'results.json'}\nReport:  {page}")
    return results


class Trained(NamedTuple):
    """Trained systems and judges (classifiers, readers and matcher), with the stages and products of all."""

    systems: list[System]
    classifiers: Classifiers | None
    stages: list[Stage]
    products: dict[str, Params]
    readers: tuple[Reader, ...] = ()
    matcher: Matcher | None = None


def check(config: ExperimentConfig) -> None:
    """Raise `SbmError` for a config that cannot work, before anything is trained."""
    for name in config.systems:
        make_system(config, name).check(config.sampler)
    report.paper_of(config.published)
    check_weights(config.evaluation.inception_weights)
    make_readers(config)
    make_matcher(config)
    for modality in config.modalities:
        form = make_format(modality)
        form.check_files()
        rate, own = config.data.folders.rate, modality.format.options.get("rate")
        heard = isinstance(form, Spectrogram)  # videos have a rate too: frames per second
        if config.data.name == "folders" and heard and rate and rate != own:
            raise SbmError(
                f"config.data.folders.rate is {rate}, but modality {modality.name!r} has a format of {own} samples a "
                "second. Set them to the rate of the WAV files."
            )
    names, known = ([m.name for m in some] for some in (config.joint_modalities, config.modalities))
    check_metrics(config.evaluation, names, known)
    pretrained_judges.check(config.evaluation, config.modalities)


def _train(
    config: ExperimentConfig,
    dataset: Dataset,
    workdir: Path,
    shared: Path | None,
    only: Iterable[str] | None = None,
    profile_dir: Path | None = None,
) -> Trained:
    """Run the stages of all systems and, except in variations, of the judges.

    Variations pass `shared`, the directory of the experiment, and use its stages and judges.
    """
    systems = [make_system(config, name) for name in config.systems]
    judged = shared is None
    classifiers, readers = (make_classifiers(config, dataset), make_readers(config)) if judged else (None, ())
    matcher = make_matcher(config) if judged else None
    stages = _all_stages(systems, [*filter(None, [classifiers]), *readers, *filter(None, [matcher])], dataset)
    products = run_stages(stages, workdir, config.seed, only, shared=shared, profile_dir=profile_dir)
    return Trained(systems, classifiers, stages, products, readers, matcher)


def make_classifiers(config: ExperimentConfig, dataset: Dataset) -> Classifiers | None:
    """Return the classifiers of all questions; None if the config has no classifier or the data no labels."""
    if config.classifier is None or not dataset.num_classes:
        return None
    return Classifiers(config.modalities, dataset.num_classes, config.classifier, config.seed)


def make_readers(config: ExperimentConfig) -> tuple[Reader, ...]:
    """Return the readers, which predict one modality from another.

    Raises:
      SbmError: if two have the same source and target.
    """
    network, seed = config.autoencoder.network, config.seed
    readers = tuple(Reader(config.modalities, one, network, seed) for one in config.readers)
    names = [" to ".join(reader.name) for reader in readers]
    require(len({*names}) == len(names), "config.readers", names, "each source and target once")
    return readers


def make_matcher(config: ExperimentConfig) -> Matcher | None:
    """Return the matcher, which scores how well modalities match; None if the config has none."""
    return config.matcher and Matcher(config.modalities, config.matcher, config.seed)


def make_judges(config: ExperimentConfig, trained: Trained, dataset: Dataset, workdir: Path) -> Judges:
    """Return the judges of an experiment's systems."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    inception = weights_path(config.evaluation.inception_weights)
    modalities, products, features = config.modalities, trained.products, workdir / "features"
    judges = Judges(dataset, modalities, trained.classifiers, products, key, inception, features)
    found = {
        "readers": trained.readers,
        "matcher": trained.matcher,
        "vggish": config.evaluation.vggish,
        "clip": config.evaluation.clip,
    }
    return dataclasses.replace(judges, cache=workdir / "evaluations", **found)


def _judge(
    config: ExperimentConfig, trained: Trained, judges: Judges, trained_on: Dataset | None = None
) -> dict[str, Evaluation]:
    return {
        system.name: judges.judge(system, trained.products, config.sampler, config.evaluation, trained_on=trained_on)
        for system in trained.systems
    }


def _vary(
    variation: Variation,
    config: ExperimentConfig,
    dataset: Dataset,
    workdir: Path,
    judges: Judges,
    profile_dir: Path | None,
) -> dict[str, Any]:
    """Train and judge one variation; stages that it shares with the experiment are read."""
    name = f"{variation.study}_{variation.value}"
    own = workdir / "variations" / name
    print(f"variation {variation.study} = {variation.value}", flush=True)
    trained = _train(config, dataset, own, workdir, profile_dir=profile_dir and profile_dir / name)
    systems = _as_results(_judge(config, trained, judges, dataset))
    _add_warnings(systems, trained, own)
    return {**dataclasses.asdict(variation), "systems": systems, "seconds": _stage_seconds(trained.stages, own)}


def prepare(workdir: Path) -> None:
    """Create the work directory and check that it is writable.

    Raises:
      SbmError: if it is not.
    """
    probe = workdir / ".writable"
    write_atomically(probe, "written to find out whether it can be\n")
    probe.unlink()


def _all_stages(systems: Iterable[System], judges: Iterable[Classifiers | Reader], dataset: Dataset) -> list[Stage]:
    """Return the stages of all systems and judges, each shared stage once.

    Raises:
      SbmError: if two stages have the same name and different settings.
    """
    stages: dict[str, Stage] = {}
    for stage in (stage for system in systems for stage in system.stages(dataset)):
        if dict(stages.setdefault(stage.name, stage).settings) != dict(stage.settings):
            raise SbmError(
                f"two systems have a stage {stage.name!r} with different settings; train each in a work directory of "
                "its own (config.systems)."
            )
    for judge in judges:
        stages[judge.stage_name] = judge.stage(dataset)
    return list(stages.values())


def _as_results(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    return {
        name: {"metrics": _as_metrics(evaluation.metrics), "not_available": evaluation.not_available}
        for name, evaluation in evaluations.items()
    }


def _as_metrics(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate._asdict() for name, estimate in metrics.items()}


def _add_warnings(results: dict[str, Any], trained: Trained, workdir: Path) -> None:
    """Add to each system's results the warnings that its metrics and training curves give rise to."""
    for system in trained.systems:
        curves = {
            stage.name: _read_metrics(stage, workdir) for stage in trained.stages if stage.name in system.stage_names
        }
        results[system.name]["warnings"] = report.find_warnings(results[system.name]["metrics"], curves)


def with_texts(figures: Mapping[str, np.ndarray], modalities: Iterable[Modality]) -> dict[str, np.ndarray]:
    """Return the report's arrays, with the sample grids [E, L, *shape] of texts replaced by strings."""
    found = dict(figures)
    for modality in modalities:
        for name, array in figures.items():
            if not (name.startswith("samples/") and name.endswith(f"/data/{modality.name}")):
                continue
            texts = make_format(modality).to_texts(array.reshape(-1, *modality.shape))
            if texts is not None:
                found[name] = texts.reshape(*array.shape[:2], *texts.shape[1:])
    return found


def _training_seconds(system: System, stages: Iterable[Stage], workdir: Path) -> dict[str, Any]:
    """Return the total training time of the stages that a system uses, in seconds, as a metric."""
    used = _stage_seconds([stage for stage in stages if stage.name in system.stage_names], workdir)
    return _as_metrics({"training/seconds": Estimate(sum(used.values()), None, len(used))}) if used else {}


def _read_metrics(stage: Stage, workdir: Path) -> list[dict]:
    """Return the metrics logged while a stage was trained; [] in every process but the main one."""
    return read_metrics(workdir / "metrics" / f"{stage.name}.jsonl") if parallel.is_main() else []


def _stage_seconds(stages: Iterable[Stage], workdir: Path) -> dict[str, float]:
    """Return the training time of each stage in seconds, summed over all runs that worked on it."""
    seconds = {}
    for stage in stages:
        rows = _read_metrics(stage, workdir)
        if rows:
            seconds[stage.name] = sum(row["seconds"] for row in rows if row["split"] == "time")
    return seconds
