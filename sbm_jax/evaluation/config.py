"""The options of an evaluation: its metrics, and the numbers of rows and samples."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sbm_jax.config import build, checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.evaluation.metrics import DEFAULT, METRICS, Metric, Plan
from sbm_jax.registry import find
from sbm_jax.types import Split


def _default_metrics() -> dict[str, Any]:
    return {name: dict(options) for name, options in DEFAULT.items()}


@checked_dataclass
class VggishConfig:
    """The network whose sound features the metric ``"frechet"`` uses in the space ``"vggish"``.

    Attributes:
      weights: a safetensors file (see `networks.pretrained.vggish`); "" for none.
      network: sizes where they differ from the published network's.
    """

    weights: str = ""
    network: dict = dataclasses.field(default_factory=dict)


@checked_dataclass
class ClipConfig:
    """The network with which the metric ``"clip_score"`` compares images and texts.

    Attributes:
      weights: a safetensors file (see `networks.pretrained.clip`); "" for none.
      tokenizer: its `tokenizer.json`.
      network: sizes where they differ from ViT-B/32's.
    """

    weights: str = ""
    tokenizer: str = ""
    network: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        both = bool(self.weights) == bool(self.tokenizer)
        require(both, "evaluation.clip.tokenizer", self.tokenizer, "a file if weights is set, or neither")


@checked_dataclass
class EvaluationConfig:
    """How much is generated, and what is measured.

    Attributes:
      num_examples: rows of the split to condition on, the same in every repeat.
      num_unconditional: joint samples per repeat.
      batch_size: rows per compiled call.
      num_repeats: number of repeats, in which everything is generated with fresh noise and random observed sets.
      num_figure_examples: rows shown in the sample grids.
      inception_weights: a file with the weights of the FID Inception-v3 (see `networks.inception`); "" to use those of
        an installed package.
      vggish: see `VggishConfig`.
      clip: see `ClipConfig`.
      metrics: {label: options} of each metric; None disables one. The metric is named by the field ``name`` of the
        options or else by the label: a key of `metrics.METRICS`, or ``"package.module:CLASS"`` for one of another
        package. Missing options take their defaults. If a metric has several entries, those whose `name` differs from
        the label prefix their results with the label.
    """

    num_examples: int = 1000
    num_unconditional: int = 1000
    batch_size: int = 256
    num_repeats: int = 3
    num_figure_examples: int = 4
    inception_weights: str = ""
    vggish: VggishConfig = VggishConfig()
    clip: ClipConfig = ClipConfig()
    metrics: dict[str, Any] = dataclasses.field(default_factory=_default_metrics)

    def __post_init__(self):
        for name in ("num_examples", "num_unconditional", "batch_size", "num_repeats", "num_figure_examples"):
            if getattr(self, name) < 1:
                raise SbmError(f"evaluation.{name} must be at least 1, not {getattr(self, name)}.")
        whole = dict.fromkeys(self.metrics)
        for label, _, options in self.chosen():
            named = {"name": self.metrics[label]["name"]} if "name" in self.metrics[label] else {}
            whole[label] = named | plain(options)
        object.__setattr__(self, "metrics", whole)

    def chosen(self) -> Iterator[tuple[str, type[Metric], Any]]:
        """Yield the label, class and checked options of each enabled metric.

        Raises:
          SbmError: if a metric or option is unknown.
        """
        for label, group in self.metrics.items():
            if group is None:
                continue
            where = f"evaluation.metrics.{label}"
            cls = find_metric(label, group)
            options = {option: value for option, value in group.items() if option != "name"}
            yield label, cls, build(cls.Options, options, where)


def find_metric(label: str, group: Any) -> type[Metric]:
    """Return the metric class of a group of options.

    Raises:
      SbmError: if the class does not exist or is abstract, or `group` is not a group of options.
    """
    where = f"evaluation.metrics.{label}"
    if not isinstance(group, (Mapping, ConfigDict)):
        raise SbmError(f"{where} must be a group of options, or None, not {group!r}.")
    found = find(f"metric ({where})", group.get("name", label), METRICS, type[Metric])
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise SbmError(f"{where}: class {found.__name__} lacks {missing}, which every metric needs. Add it.")
    return found


def check_metrics(config: EvaluationConfig, modalities: Sequence[str], known: Sequence[str] = ()) -> None:
    """Check the options of all metrics.

    Args:
      config: the metrics, and how much is generated.
      modalities: names of the generated modalities.
      known: names of all modalities of the data; () if they are the same.

    Raises:
      SbmError: if options cannot work with these modalities.
    """
    names, all_names = tuple(modalities), tuple(known or modalities)
    plan = Plan(config.num_examples, config.num_unconditional, names, all_names, config.num_repeats)
    for _, cls, options in config.chosen():
        cls.check(options, plan)


def check_data(config: EvaluationConfig, test: Split) -> None:
    """Check that all metrics can be computed on the held-out rows.

    Raises:
      SbmError: if a metric cannot use the data, or its options do not fit them.
    """
    for _, cls, options in config.chosen():
        cls.check_data(options, test)


def check_size(config: EvaluationConfig, split: Split) -> None:
    """Check that the split has at least `config.num_examples` rows.

    Raises:
      SbmError: if it has fewer.
    """
    if config.num_examples > len(split):
        raise SbmError(
            f"evaluation.num_examples is {config.num_examples}, but the split has {len(split)} rows; "
            f"set it to {len(split)} or less."
        )
