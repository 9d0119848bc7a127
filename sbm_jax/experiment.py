"""The job: data, stages in order, generation, evaluation, report."""

import contextlib
import dataclasses
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sbm_jax import data, parallel, report
from sbm_jax.config import build, checked_dataclass, plain
from sbm_jax.data import DataConfig
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import Estimate, Evaluation, EvaluationConfig, check_size, check_targets
from sbm_jax.judges import Judges, feature_space, read_weights, weights_path
from sbm_jax.lock import writing_to
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import user_path, write_atomically
from sbm_jax.systems.auxiliary_prior import AuxiliaryPrior
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.systems.eb_mvae import EbMvae, EbMvaeConfig
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import VARIANTS, JointPosteriorConfig
from sbm_jax.systems.mld import Mld, MldConfig, mld_parts
from sbm_jax.systems.sbm import Sbm, SbmConfig, ScoreConfig
from sbm_jax.systems.sbm_contrastive import ContrastiveConfig, SbmContrastive
from sbm_jax.systems.sbm_energy import EnergyConfig, SbmEnergy
from sbm_jax.systems.sbm_finetuned import FinetuningConfig, SbmFinetuned
from sbm_jax.systems.sbm_marginal import MarginalConfig, SbmMarginal
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.training.loop import run_stages
from sbm_jax.training.writers import read_metrics
from sbm_jax.types import Dataset, Modality, Params, Stage, System

logger = logging.getLogger(__name__)

# MARK: Configuration


@checked_dataclass
class Variation:
    """An experiment that differs from the main one in some settings, and shares with it what they do not touch.

    Attributes:
      study: what is varied, such as ``"beta"``; variations of one study are shown in one table.
      value: its value, as it is shown.
      changes: the new values by dotted path, such as ``{"autoencoder.beta": 0.5}``; not of what all variations share:
        the data and the judges.
    """

    study: str
    value: str
    changes: dict[str, Any]

    def __post_init__(self):
        where = f"variation {self.study} = {self.value}"
        named = re.fullmatch(r"\w[\w .+-]*", f"{self.study}_{self.value}")  # the name of a directory
        require(bool(named), "study and value", where, "letters, digits, spaces and any of _.+-")
        kept = ("data", "modalities", "classifier", "variations", "evaluation.features.weights", "seed", "published")
        for path in self.changes:
            require(not path.startswith(kept), where, path, f"nothing of {', '.join(kept)}, which variations share")


@checked_dataclass
class ExperimentConfig:
    """Everything a run depends on; the fields of the files in `configs/`.

    Attributes:
      name: shown in the report.
      seed: the seed of every random draw.
      systems: the rows of the results table, keys of `SYSTEMS`.
      modalities: the parts of a data point.
      joint: the names of those that are modelled together; all where there is none. Stage I trains every modality,
        unless its latents are aligned.
      data: where the data come from.
      autoencoder: stage I.
      score: stage II.
      energy: the energy model of the ``_c`` systems; None without them.
      contrastive: the encoders of the ``_t`` systems; None without them.
      marginal: the guidance of the ``_m`` systems.
      finetuning: of the decoders of the ``_f`` systems; None without them.
      eb_mvae: the energy of the joint latents of that system; None without it.
      mld: the diffusion of that system; None without it.
      joint_posterior: the multimodal variational autoencoders; None without them.
      classifier: the judge of coherence; None for data without labels.
      sampler: see `sampling.SamplerOptions`.
      evaluation: see `evaluation.EvaluationConfig`.
      variations: further experiments that share the work directory, and the report.
      published: the published numbers that the report sets beside ours, a key of `report.published.PAPERS`, or "".
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
    joint: tuple[str, ...] = ()
    contrastive: ContrastiveConfig | None = None
    marginal: MarginalConfig = MarginalConfig()
    finetuning: FinetuningConfig | None = None
    eb_mvae: EbMvaeConfig | None = None
    mld: MldConfig | None = None
    joint_posterior: JointPosteriorConfig | None = None
    classifier: ClassifierConfig | None = None
    seed: int = 0
    variations: tuple[Variation, ...] = ()
    published: str = ""

    def __post_init__(self):
        named = re.fullmatch(r"\w[\w .+-]*", self.name)  # the name of a directory
        require(bool(named), "config.name", self.name, "letters, digits, spaces and any of _.+-")
        require(0 <= self.seed < 2**32, "config.seed", self.seed, "0 to 2**32 - 1, of which JAX makes keys")
        require(bool(self.systems), "config.systems", self.systems, f"one or more of {', '.join(SYSTEMS)}")
        for name in self.systems:
            if name not in SYSTEMS:
                raise unknown("system (config.systems)", name, SYSTEMS)
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names) or not names:
            raise SbmError(f"config.modalities must have at least one modality, each with its own name, not {names}.")
        for name in self.joint:
            if name not in names:
                raise unknown("modality (config.joint)", name, names)

    @property
    def joint_modalities(self) -> tuple[Modality, ...]:
        """The modalities that are modelled together, in the order of `modalities`."""
        return tuple(modality for modality in self.modalities if not self.joint or modality.name in self.joint)


def _sbm(name: str) -> Callable[[ExperimentConfig], System]:
    """Return what makes `sbm_{vae, rae}`, plain or with a suffix, or `eb_mvae`, over the same latents, or `mld`.

    Energy (`_c`), contrastive (`_t`) and marginal (`_m`) guidance, and fine-tuned decoders (`_f`).
    """
    _, kind, *suffix = name.split("_") if "_" in name else ("", "rae")

    def make(config: ExperimentConfig) -> System:
        parts = SbmConfig(config.autoencoder, config.score)
        modalities = config.joint_modalities
        shared = len(modalities) < len(config.modalities) and not config.autoencoder.alignment
        common = {
            "name": name,
            "modalities": modalities,
            "config": parts,
            "seed": config.seed,
            "regularised": kind == "rae",
            "encoded": config.modalities if shared else (),
        }
        if name == "mld":
            if config.mld is None:
                raise SbmError("system 'mld' needs config.mld, the config of its diffusion.")
            return Mld(**{**common, "config": mld_parts(config.autoencoder, config.mld)}, mld=config.mld)
        if name == "eb_mvae":
            return EbMvae(**common, energy=config.eb_mvae)
        if suffix == ["c"]:
            return SbmEnergy(**common, energy=config.energy)
        if suffix == ["t"]:
            return SbmContrastive(**common, contrastive=config.contrastive)
        if suffix == ["f"]:
            return SbmFinetuned(**common, finetuning=config.finetuning, sampler=config.sampler)
        if suffix == ["m"]:
            return SbmMarginal(**common, marginal=config.marginal)
        return Sbm(**common)

    return make


def _joint_posterior(name: str) -> Callable[[ExperimentConfig], System]:
    """Return what makes a VAE with one latent for all modalities, or one with a trained prior."""

    def make(config: ExperimentConfig) -> System:
        if config.joint_posterior is None:
            raise SbmError(f"system {name!r} needs config.joint_posterior, the config of its autoencoders.")
        make_system = JointPosterior if name in VARIANTS["original"] else AuxiliaryPrior
        return make_system(name, config.joint_modalities, config.joint_posterior, config.seed)

    return make


PRIORS = ("", "_score", "_mixture")
"""Where joint samples of the multimodal VAEs come from: N(0, I), a score model or a Gaussian mixture."""

SYSTEMS: dict[str, Callable[[ExperimentConfig], System]] = (
    {
        name: _sbm(name)
        for name in (f"sbm_{kind}{guidance}" for guidance in ("", "_c", "_t", "_m", "_f") for kind in ("vae", "rae"))
    }
    | {name: _sbm(name) for name in ("eb_mvae", "mld")}
    | {f"{name}{prior}": _joint_posterior(f"{name}{prior}") for prior in PRIORS for name in VARIANTS["original"]}
)


def parse_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Return the checked form of a `ConfigDict` or of the JSON that a work directory keeps."""
    return build(ExperimentConfig, values)


def apply_changes(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config with new values at dotted paths, and without variations.

    Raises:
      SbmError: if there is no such field, or a value does not fit.
    """
    values = plain(dataclasses.replace(config, variations=()))
    for path, value in changes.items():
        *groups, name = path.split(".")
        group = values
        for part in groups:
            group = group.get(part)
            if not isinstance(group, dict):
                raise SbmError(f"variation: the config has no group {part!r} in {path!r}.")
        if name not in group:
            raise unknown(f"field in a variation's {path!r}:", name, group)
        group[name] = value
    return parse_config(values)


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


def run(
    config: ExperimentConfig,
    workdir: str | os.PathLike[str],
    stages: Iterable[str] | None = None,
    *,
    profile: bool = False,
) -> dict[str, Any]:
    """Train what is not trained yet, evaluate, and write results and report.

    What is complete in the work directory is read: stages, and evaluations. Results and report are written after each
    part, and list what is still to come.

    Args:
      config: the experiment.
      workdir: where everything is kept; made if it does not exist.
      stages: names of the training stages to run, without evaluation and variations; None runs everything.
      profile: write traces of some steps of each stage into its ``profile`` folder.

    Returns:
      The content of `results.json`, or {} where only stages were asked for.

    Raises:
      SbmError: on anything that the user can mend.
    """
    start = time.monotonic()
    if not isinstance(config, ExperimentConfig):
        raise SbmError(f"config is of type {type(config).__name__}; expected an ExperimentConfig, from parse_config.")
    if not isinstance(workdir, (str, os.PathLike)):
        raise SbmError(f"workdir is {workdir!r}; expected the path of a directory.")
    if isinstance(stages, str) or not isinstance(stages, (Iterable, type(None))):
        raise SbmError(f"stages is {stages!r}; expected a list of names, or None for all.")
    workdir = user_path(workdir, "workdir")
    places = [f"{variation.study}_{variation.value}" for variation in config.variations]
    require(len({*places}) == len(places), "config.variations", places, "each study and value once")
    varied = [apply_changes(config, variation.changes) for variation in config.variations]
    for one in (config, *varied):
        check(one)
    with contextlib.ExitStack() as held:
        if parallel.is_main():
            prepare(workdir)
            held.enter_context(writing_to(workdir))
        results = _run(config, varied, workdir, stages, workdir / "profile" if profile else None, start)
        parallel.wait_for_all("the report is written")  # who ends before would end the job
        return results


def _run(
    config: ExperimentConfig,
    varied: list[ExperimentConfig],
    workdir: Path,
    stages: Iterable[str] | None,
    profile_dir: Path | None,
    start: float,
) -> dict[str, Any]:
    with parallel.main_first("data"):  # what it prepares is kept, and found by the others
        dataset = data.load(config.data, workdir / "data", [modality.name for modality in config.modalities])
    if not (workdir / "lock").is_file():
        raise SbmError(f"this process does not see {workdir} as the first one left it. {parallel.SHARED}")
    dataset = data.check(dataset, config.modalities)
    if config.classifier is not None and dataset.num_classes is None:
        logger.warning(
            "the config has a classifier, and the data have no labels: coherence can not be measured. Add labels, or "
            "leave the classifier out."
        )
    for one in (config, *varied):
        check_size(one.evaluation, dataset.test)
    main = _train(config, dataset, workdir, None, stages, profile_dir)
    if parallel.is_main():
        write_atomically(workdir / "config.json", json.dumps(plain(config), indent=1))
    if stages is not None:
        return {}

    judges = make_judges(config, main, dataset, workdir)
    results = {
        "name": config.name,
        "data": {"metrics": _as_metrics(judges.real_distances(config.evaluation))},
        "config": plain(config),
        "versions": report.versions(),
        "device": report.device(),
        "command": " ".join(["python -m sbm_jax.main", *map(shlex.quote, sys.argv[1:])]),
        "published": config.published,
    }
    evaluations = _judge(config, main, judges)
    results["systems"] = _as_results(evaluations)
    for system in main.systems:
        results["systems"][system.name]["metrics"] |= _training_seconds(system, main.stages, workdir)
    results["variations"] = []
    figures = {name: evaluation.figures for name, evaluation in evaluations.items()}
    curves = {stage.name: _read_metrics(stage, workdir) for stage in main.stages}
    for number in range(len(varied) + 1):
        if number:
            variation = config.variations[number - 1]
            results["variations"].append(_vary(variation, varied[number - 1], workdir, judges, profile_dir))
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
    """Trained systems, the stages of all of them, and the products of these by name."""

    systems: list[System]
    classifiers: Classifiers | None
    stages: list[Stage]
    products: dict[str, Params]


def check(config: ExperimentConfig) -> None:
    """Raise `SbmError` for what can not work, before anything is trained."""
    for name in config.systems:
        SYSTEMS[name](config).check(config.sampler)
    report.paper_of(config.published)
    features = config.evaluation.features
    if features.num_examples and (path := weights_path(features.weights)):
        read_weights(path)
    check_targets(config.evaluation, [modality.name for modality in config.joint_modalities])
    names = [modality.name for modality in config.modalities]
    for name in features.modalities:
        if name not in names:
            raise unknown("modality in config.evaluation.features.modalities:", name, names)


def _train(
    config: ExperimentConfig,
    dataset: Dataset,
    workdir: Path,
    shared: Path | None,
    only: Iterable[str] | None = None,
    profile_dir: Path | None = None,
) -> Trained:
    """Run the stages of all systems."""
    systems = [SYSTEMS[name](config) for name in config.systems]
    classifiers = make_classifiers(config, dataset)
    stages = _all_stages(systems, classifiers, dataset)
    products = run_stages(stages, workdir, config.seed, only, shared=shared, profile_dir=profile_dir)
    return Trained(systems, classifiers, stages, products)


def make_classifiers(config: ExperimentConfig, dataset: Dataset) -> Classifiers | None:
    """Return the judges of coherence, or None where the config or the data have none."""
    if config.classifier is None or dataset.num_classes is None:
        return None
    return Classifiers(config.modalities, dataset.num_classes, config.classifier, config.seed)


def make_judges(config: ExperimentConfig, trained: Trained, dataset: Dataset, workdir: Path) -> Judges:
    """Return what judges the systems of an experiment."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    features = config.evaluation.features
    space, missing = None, {"inception/fid": "not asked for: evaluation.features.num_examples is 0"}
    if features.num_examples:
        cache = workdir / "features"
        space, missing = feature_space(
            features.weights, config.modalities, trained.classifiers, trained.products, cache, features.modalities
        )
    params = trained.classifiers and trained.products[trained.classifiers.stage_name]
    return Judges(dataset, trained.classifiers, params, space, missing, key, workdir / "evaluations")


def _judge(config: ExperimentConfig, trained: Trained, judges: Judges) -> dict[str, Evaluation]:
    return {
        system.name: judges.judge(system, trained.products, config.sampler, config.evaluation)
        for system in trained.systems
    }


def _vary(
    variation: Variation, config: ExperimentConfig, workdir: Path, judges: Judges, profile_dir: Path | None
) -> dict[str, Any]:
    """Train and judge one variation; stages that it has in common with the experiment are read."""
    name = f"{variation.study}_{variation.value}"
    own = workdir / "variations" / name
    print(f"variation {variation.study} = {variation.value}", flush=True)
    trained = _train(config, judges.dataset, own, workdir, profile_dir=profile_dir and profile_dir / name)
    return {
        **dataclasses.asdict(variation),
        "systems": _as_results(_judge(config, trained, judges)),
        "seconds": _stage_seconds(trained.stages, own),
    }


def prepare(workdir: Path) -> None:
    """Make the work directory and check that it can be written to.

    Raises:
      SbmError: if it can not.
    """
    probe = workdir / ".writable"
    write_atomically(probe, "written to find out whether it can be\n")
    probe.unlink()


def _all_stages(systems: Iterable[System], classifiers: Classifiers | None, dataset: Dataset) -> list[Stage]:
    """Return the stages of all systems, those that several share once."""
    stages: dict[str, Stage] = {}
    for stage in (stage for system in systems for stage in system.stages(dataset)):
        if dict(stages.setdefault(stage.name, stage).settings) != dict(stage.settings):
            raise SbmError(
                f"two systems have a stage {stage.name!r} with different settings; train each in a work directory of "
                "its own (config.systems)."
            )
    if classifiers is not None:
        stages[classifiers.stage_name] = classifiers.stage(dataset)
    return list(stages.values())


def _as_results(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    return {
        name: {"metrics": _as_metrics(evaluation.metrics), "not_available": evaluation.not_available}
        for name, evaluation in evaluations.items()
    }


def _as_metrics(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate._asdict() for name, estimate in metrics.items()}


def _training_seconds(system: System, stages: Iterable[Stage], workdir: Path) -> dict[str, Any]:
    """Return the seconds of all stages that a system uses, as a metric."""
    used = _stage_seconds([stage for stage in stages if stage.name in system.stage_names], workdir)
    return _as_metrics({"training/seconds": Estimate(sum(used.values()), None, len(used))}) if used else {}


def _read_metrics(stage: Stage, workdir: Path) -> list[dict]:
    """Return what was written while a stage was trained; [] in all processes but the one that writes and reports."""
    return read_metrics(workdir / "metrics" / f"{stage.name}.jsonl") if parallel.is_main() else []


def _stage_seconds(stages: Iterable[Stage], workdir: Path) -> dict[str, float]:
    """Return the seconds that each stage took, over all runs that worked on it."""
    seconds = {}
    for stage in stages:
        rows = _read_metrics(stage, workdir)
        if rows:
            seconds[stage.name] = sum(row["seconds"] for row in rows if row["split"] == "time")
    return seconds
