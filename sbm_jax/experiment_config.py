"""The config of an experiment: its defaults, its checked form, and the copy that work directories keep."""

import dataclasses
import json
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sbm_jax.config import build, checked_dataclass, fill, plain
from sbm_jax.data import DATASETS, DataConfig, find_loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import EvaluationConfig
from sbm_jax.evaluation.config import find_metric
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import System
from sbm_jax.systems.classifier import ClassifierConfig
from sbm_jax.systems.codec_training import AutoencoderConfig
from sbm_jax.systems.matcher import MatcherConfig
from sbm_jax.systems.method import NamesModalities, Shared
from sbm_jax.systems.methods import METHODS, find_method, option_groups
from sbm_jax.systems.readers import ReaderConfig
from sbm_jax.systems.score_stage import ScoreConfig
from sbm_jax.types import Modality


@checked_dataclass
class Variation:
    """An experiment that differs from the main one in some settings, and shares everything that they do not affect.

    Attributes:
      study: what is varied, such as ``"beta"``; variations of one study are shown in one table.
      value: its value, as shown in the table.
      changes: new values by dotted path, such as ``{"autoencoder.beta": 0.5}``. What all variations share cannot
        change: the judges, and the data except for ``data.complete`` and ``data.missing``.
    """

    study: str
    value: str
    changes: dict[str, Any]

    def __post_init__(self):
        where = f"variation {self.study} = {self.value}"
        named = re.fullmatch(r"\w[\w .+-]*", f"{self.study}_{self.value}")  # a directory name
        require(bool(named), "study and value", where, "letters, digits, spaces and any of _.+-")
        kept = (
            "data",
            "modalities",
            "classifier",
            "readers",
            "matcher",
            "variations",
            "evaluation.inception_weights",
            "evaluation.vggish",
            "evaluation.clip",
            "seed",
            "published",
        )
        for path in self.changes:
            own = path in ("data.complete", "data.missing") or not path.startswith(kept)
            require(own, where, path, f"a path outside of {', '.join(kept)}, which variations share")


@checked_dataclass
class ExperimentConfig:
    """Everything a run depends on; the fields of the files in `configs/`.

    Attributes:
      name: shown in the report.
      seed: the seed of every random draw.
      systems: the rows of the results table: keys of `systems.methods.METHODS`, or methods of other packages as
        ``"package.module:METHOD"``.
      modalities: the modalities of a data point, in mask order.
      joint: names of the modalities that are modelled together; () for all. Stage I trains every modality, unless its
        latents are aligned.
      data: where the data come from.
      autoencoder: stage I.
      score: stage II.
      methods: the methods' own options, {group: options}; see `Method.options`. It has every group of this package, and
        those of other packages' methods in `systems`.
      classifier: the judge of coherence; None for data without labels.
      readers: networks that predict one modality from another. The metric ``"readings"`` reads samples with them, and
        ``"robustness"`` attacks by their gradients.
      matcher: encoders into a shared space, in which the metric ``"agreement"`` measures how well generated data agree
        with their condition; None for none.
      sampler: see `sampling.SamplerOptions`.
      evaluation: see `evaluation.EvaluationConfig`.
      variations: further experiments that share the work directory, and the report.
      published: the published numbers to show beside ours in the report, a key of `report.published.PAPERS`, or "".
    """

    name: str = "experiment"
    seed: int = 0
    systems: tuple[str, ...] = ("sbm_vae",)
    modalities: tuple[Modality, ...] = ()
    joint: tuple[str, ...] = ()
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    score: ScoreConfig = ScoreConfig()
    methods: dict = dataclasses.field(default_factory=dict)
    classifier: ClassifierConfig | None = None
    readers: tuple[ReaderConfig, ...] = ()
    matcher: MatcherConfig | None = None
    sampler: SamplerOptions = SamplerOptions()
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    variations: tuple[Variation, ...] = ()
    published: str = ""

    def __post_init__(self):
        named = re.fullmatch(r"\w[\w .+-]*", self.name)  # a directory name
        require(bool(named), "config.name", self.name, "letters, digits, spaces and any of _.+-")
        require(0 <= self.seed < 2**32, "config.seed", self.seed, "0 to 2**32 - 1, the seeds of JAX keys")
        require(bool(self.systems), "config.systems", self.systems, f"one or more of {', '.join(METHODS)}")
        rows = [find_method(name).name for name in self.systems]
        require(len({*rows}) == len(rows), "config.systems", self.systems, "methods with different names")
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names) or not names:
            raise SbmError(f"config.modalities must have at least one modality, each with its own name, not {names}.")
        for name in self.joint:
            if name not in names:
                raise unknown("modality (config.joint)", name, names)
        object.__setattr__(self, "methods", _build_methods(self.systems, self.methods))
        for options in self.methods.values():
            if isinstance(options, NamesModalities):
                options.check_modalities(names)

    @property
    def joint_modalities(self) -> tuple[Modality, ...]:
        """The jointly modelled modalities, in the order of `modalities`."""
        return tuple(modality for modality in self.modalities if not self.joint or modality.name in self.joint)

    @property
    def shared(self) -> Shared:
        """The settings that all methods receive."""
        joint = self.joint_modalities
        encoded = self.modalities if len(joint) < len(self.modalities) and not self.autoencoder.alignment else ()
        return Shared(joint, self.autoencoder, self.score, self.sampler, self.seed, encoded)


def _build_methods(systems: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Build the options of all methods, {group: dataclass}, with defaults for what is not given."""
    groups = option_groups(systems)
    for name in given:
        if name not in groups:
            raise unknown("group of config.methods:", name, groups)
    found = {}
    for name, cls in groups.items():
        options = given.get(name, {})
        found[name] = options if isinstance(options, cls) else build(cls, options, f"config.methods.{name}")
    return found


def make_system(config: ExperimentConfig, name: str) -> System:
    """Return a system of an experiment.

    Args:
      config: the experiment.
      name: the name of a method, as in `config.systems`, although it need not be listed there.

    Raises:
      SbmError: if there is no such method, or it cannot work with this config.
    """
    return find_method(name).system(config.shared, config.methods)


# MARK: From and to plain values


CHOICES = {"systems": tuple, "data.name": str}
"""{path: type} of the fields that determine which groups of options exist."""


def complete(config: ConfigDict, choices: Mapping[str, Any] | None = None) -> None:
    """Fill in the defaults of a config, and give each field the type that overrides are parsed as.

    Args:
      config: what a config file returns.
      choices: new values of `CHOICES`, set first because they determine which other fields exist.

    Raises:
      SbmError: on an unknown field, method, metric or data set, or a value where a group is expected.
    """
    choices = choices or {}
    fill(config, ExperimentConfig, "config")
    with config.unlocked():
        for path in ("methods", "data", "data.options", "evaluation", "evaluation.metrics"):
            group = operator.attrgetter(path)(config)
            if not isinstance(group, ConfigDict):
                raise SbmError(f"config.{path} must be a group of fields, not {group!r}.")
        if "data.name" in choices:
            config.data.name = choices["data.name"]
        if "systems" in choices:
            for name in _left_out(config.systems, choices["systems"]) & {*config.methods}:
                del config.methods[name]
            config.systems = choices["systems"]
        for name, cls in _groups(config.systems).items():
            if name not in config.methods:
                config.methods[name] = ConfigDict()
            fill(config.methods[name], cls, f"config.methods.{name}")
        if config.data.name not in DATASETS:
            fill(config.data.options, find_loader(config.data.name).options, "config.data.options")
        for label, group in config.evaluation.metrics.items():
            if group is not None:
                fill(group, find_metric(label, group).Options, f"config.evaluation.metrics.{label}", ("name",))


def _groups(systems: Any) -> dict[str, type]:
    """Return the groups of options, {group: class}, of a value of `config.systems`."""
    require(isinstance(systems, (tuple, list)), "config.systems", systems, "a tuple of names")
    return option_groups(systems)


def _left_out(before: Any, after: Any) -> set[str]:
    """Return the groups of options that `before` has and `after` does not."""
    return {*_groups(before)} - {*_groups(after)}


def default_config() -> ConfigDict:
    """Return the default config, from which config files start. The modalities are still to be set.

    Unknown fields cannot be set, except where other packages add theirs: groups of `methods` and of
    `evaluation.metrics`, and fields of `data.options`.
    """
    config = ConfigDict()
    complete(config)
    config.lock()
    config.data.options.unlock()
    for groups in (config.methods, config.evaluation.metrics):
        groups.unlock()
        for name in groups:
            groups[name].lock()
    return config


def parse_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Check a `ConfigDict`, or the JSON that a work directory keeps, and return it as an `ExperimentConfig`."""
    return build(ExperimentConfig, values)


def apply_changes(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config with new values at dotted paths, and without variations.

    Raises:
      SbmError: if there is no such field, or a value does not fit.
    """
    values = plain(dataclasses.replace(config, variations=()))
    if "systems" in changes:  # first, because methods add and remove their options
        for name in _left_out(config.systems, changes["systems"]):
            del values["methods"][name]
        defaults = {name: plain(cls()) for name, cls in _groups(changes["systems"]).items()}
        values["methods"] = {**defaults, **values["methods"]}
    for path, value in changes.items():
        *groups, name = path.split(".")
        group = values
        for part in groups:
            group = group.get(part)
            if not isinstance(group, dict):
                raise SbmError(f"the config has no group {part!r}, in the change of {path!r}.")
        if name not in group and groups != ["evaluation", "metrics"]:  # where new ones may be added
            raise unknown(f"field in the change of {path!r}:", name, group)
        group[name] = value
    return parse_config(values)


def read_config(workdir: Path) -> ExperimentConfig:
    """Return the config that a work directory keeps once its training is complete.

    Raises:
      SbmError: if there is none, or it is damaged or of an earlier version.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise SbmError(f"{workdir} holds no finished run: {path} does not exist. Train it with python -m sbm_jax.main.")
    refuse_earlier(workdir)
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SbmError(f"{path} is damaged ({error}); run the training command again to rewrite it.") from error


def refuse_earlier(workdir: Path) -> None:
    """Refuse a work directory of an earlier version, in which the options of methods were fields of the config.

    Raises:
      SbmError: if it is one.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return
    if isinstance(values, dict) and "methods" not in values:
        raise SbmError(
            f"{workdir} was written by an earlier version of sbm_jax, with other options and parameters, which this "
            "one cannot read. Train in a new work directory, or use this one with the version that wrote it."
        )
