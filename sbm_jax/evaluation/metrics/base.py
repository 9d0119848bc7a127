"""What a metric is: what it asks to be generated, how it looks at it, and the numbers that it ends in.

A metric is one class with its own checked options. This package's are the entries of `metrics.METRICS`; one of another
package is named in a config as ``"package.module:CLASS"``.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import unknown
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.evaluation.features import FeatureSpace
from sbm_jax.evaluation.observed_sets import TO_TARGET, Ask
from sbm_jax.system import Generated
from sbm_jax.types import LABEL, Array, Data, Key, Split

ClassifierFn = Callable[[Data], Mapping[str, Array]]  # {modality: [B, *shape]} -> {modality: int [B]}
ReconstructFn = Callable[[Data], Data]
EncodeFn = Callable[[Data], Mapping[str, Array]]  # {modality: [B, *shape]} -> {modality: [B, D_m]}
PosteriorsFn = Callable[[Data], Mapping[str, tuple[Array, Array | None]]]  # see `system.HasCodecs`
EmbedFn = Callable[[Data], Mapping[str, np.ndarray]]  # {modality: [B, *shape]} -> {modality: [B, E]}
LogWeightsFn = Callable[[Key, Mapping[str, Array], int], Array]
# (name of the space or "" for the best, modalities asked for) -> the features, and why others are not there, by metric
SpaceFn = Callable[[str, Sequence[str]], tuple[FeatureSpace | None, dict[str, str]]]

NO_CLASS = -1
"""The class of a sample that is not finite: it is never right, agrees with nothing and is no share of any class."""


class GenerateFn(Protocol):
    """A system's `generate` with everything but these arguments bound, already compiled."""

    def __call__(self, key: Key, data: Data, observed: Array, num_samples: int) -> Generated:
        """Return `num_samples` samples per row."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is judged: the compiled functions of one system, None for those that it lacks.

    Attributes:
      generate: `(key, data, observed [B, M], num_samples) -> Generated`; None where real data are judged.
      reconstruct: `{modality: [B, *shape]} -> {modality: [B, *shape]}`.
      encode: `{modality: [B, *shape]} -> {modality: [B, D_m]}` in the units of generated latents.
      log_weights: `(key, data, S) -> log p(x, z_s) - log q(z_s | x) [B, S]`.
      costly_weights: whether one sample of the weights is all that can be afforded.
      posteriors: `{modality: [B, *shape]} -> {modality: (mean [B, D_m], log variance or None)}` of each codec.
      codec_reconstructions: the same, of the codecs alone; there where `posteriors` are.
    """

    generate: GenerateFn | None = None
    reconstruct: ReconstructFn | None = None
    encode: EncodeFn | None = None
    log_weights: LogWeightsFn | None = None
    costly_weights: bool = False
    posteriors: PosteriorsFn | None = None
    codec_reconstructions: ReconstructFn | None = None


def no_space(name: str, asked: Sequence[str]) -> tuple[None, dict[str, str]]:
    """Return that there are no features of any network."""
    del name, asked
    return None, {"inception/fid": "there are no features to compare in"}


class ReaderFns(NamedTuple):
    """What tells a target from a source.

    Attributes:
      read: `sources [B, *shape] -> targets [B, *shape']`, as they are expected to be.
      attack: `(sources, targets, strengths [B]) -> sources` that are misread.
    """

    read: Callable[[np.ndarray], np.ndarray]
    attack: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tools:
    """What the subject is judged with, the same for all subjects.

    Attributes:
      classifiers: by question, `{modality: [B, *shape]} -> {modality: int [B]}`.
      num_classes: the number of classes of each question that has a classifier.
      space: the features in which samples are compared with real data.
      readers: by source and target, what tells one modality from another.
      pictures: the names of the modalities that are pictures to look at.
      embed: `{modality: [B, *shape]} -> {modality: [B, E]}`, unit vectors in one space; None without a matcher.
      clip: the same of images and texts, by CLIP, NaN where data are not finite; None without its weights.
    """

    classifiers: Mapping[str, ClassifierFn] = dataclasses.field(default_factory=dict)
    num_classes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    space: SpaceFn = no_space
    readers: Mapping[tuple[str, str], ReaderFns] = dataclasses.field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    embed: EmbedFn | None = None
    clip: EmbedFn | None = None


NO_TOOLS = Tools()


class Cost(NamedTuple):
    """The cost of one compiled call.

    Attributes:
      num_rows: rows asked for, without padding.
      info: the scalars that the system reports.
    """

    num_rows: int
    info: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that a metric may use besides the samples that it asks for.

    Attributes:
      subject: what is judged.
      tools: what it is judged with.
      modalities: the names, in the order of the columns of observed sets.
      test: the held-out rows.
      order: int [N], all rows of `test`, in the order in which they are conditioned on: first those that have all
        modalities.
      examples: those that are conditioned on, in this order.
      batch_size: rows per compiled call.
      key: `number -> key` for what a metric draws on its own; each takes a number of its own.
      costs: for each repeat those of the calls of the generator, as they are done.
      train: training rows, the same for all subjects; None where they are not known.
      trained_on: the rows that the subject was trained on, which a variation may have fewer of.
    """

    subject: Subject
    tools: Tools
    modalities: tuple[str, ...]
    test: Split
    order: np.ndarray
    examples: Split
    batch_size: int
    key: Callable[[int], Key]
    costs: list[list[Cost]] = dataclasses.field(default_factory=list)
    train: Split | None = None
    trained_on: Split | None = None

    @property
    def judged(self) -> list[str]:
        """The questions that have both a classifier and true answers."""
        return [question for question in self.tools.classifiers if question in self.examples.labels]

    @functools.cached_property
    def complete(self) -> Split:
        """The examples that have all modalities: the first ones."""
        return self.examples.take(np.arange(self.examples.having(self.modalities).sum()))

    def real(self, count: int = 0) -> dict[str, np.ndarray]:
        """Return the first `count` real held-out rows that have each modality, 0 for all: {modality: [n, *shape]}."""
        found = {}
        for name in self.modalities:
            rows = self.order[self.test.having([name])[self.order]]
            found[name] = self.test.read([name], rows[: count or None])[name]
        return found

    def classify(self, question: str, data: Data) -> np.ndarray:
        """Return the class seen in each modality, int [B, M], `NO_CLASS` where the data are not finite."""
        seen = self.tools.classifiers[question]({name: data[name] for name in self.modalities})
        columns = []
        for name in self.modalities:
            columns.append(np.where(finite_rows(data[name]), np.asarray(seen[name]), NO_CLASS))
        return np.stack(columns, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One compiled call of the generator, with one sample of each row; what is derived from it is kept.

    Attributes:
      scene: where it was made.
      given: the true data of its rows, {modality: float [B, *shape]}.
      generated: what came of it, [B, 1, ...].
    """

    scene: Scene
    given: Mapping[str, np.ndarray]
    generated: Generated

    @functools.cached_property
    def samples(self) -> dict[str, Array]:
        """{modality: [B, *shape]}."""
        return {name: self.generated.data[name][:, 0] for name in self.scene.modalities}

    @functools.cached_property
    def classes(self) -> Callable[[str], np.ndarray]:
        """The function from a question to the class seen in each modality of each row, int [B, M]."""
        return functools.cache(lambda question: self.scene.classify(question, self.samples))

    @functools.cached_property
    def readings(self) -> Callable[[str, str], np.ndarray]:
        """The function from source and target to what a reader tells of each sample of the source, [B, *shape]."""
        readers = self.scene.tools.readers
        return functools.cache(lambda source, target: readers[source, target].read(np.asarray(self.samples[source])))

    @functools.cached_property
    def embedded(self) -> Callable[[str, bool], np.ndarray]:
        """The function from a modality to the matcher's vectors [B, E] of its samples, or of the true data if so told.

        They are NaN where the data are not finite.
        """

        def embed(name: str, real: bool) -> np.ndarray:
            data = np.asarray(self.given[name] if real else self.samples[name])
            return np.where(finite_rows(data)[:, None], self.scene.tools.embed({name: data})[name], np.nan)

        return functools.cache(embed)

    @functools.cached_property
    def encoded(self) -> Mapping[str, Array]:
        """The latents of the true data, {modality: [B, D_m]}."""
        return self.scene.subject.encode(self.given)


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """The samples of one ask in one call: R rows.

    Attributes:
      ask: what asked for them.
      repeat: everything is generated anew so many times, with other noise.
      rows: int [R], rows of `Scene.examples`.
      observed: bool [R, M], True = given.
      inside: int [R], where the samples are in the arrays of the call.
      call: what all draws of the call share.
    """

    ask: Ask
    repeat: int
    rows: np.ndarray
    observed: np.ndarray
    inside: np.ndarray
    call: Call

    def generated(self, modality: str) -> np.ndarray:
        """Return the samples of a modality, float [R, *shape]; the given ones where it was given."""
        return np.asarray(self.call.samples[modality])[self.inside]

    def real(self, modality: str) -> np.ndarray:
        """Return the true data of the rows, float [R, *shape]."""
        return self.call.given[modality][self.inside]

    def labels(self, question: str) -> np.ndarray:
        """Return the true answers to a question, int [R]."""
        return self.call.scene.examples.labels[question][self.rows]

    def classes(self, question: str) -> np.ndarray:
        """Return the class that a classifier sees in each modality, int [R, M], `NO_CLASS` where not finite."""
        return self.call.classes(question)[self.inside]

    def read(self, source: str, target: str) -> np.ndarray:
        """Return the target that a reader tells from the samples of a source, float [R, *shape]."""
        return self.call.readings(source, target)[self.inside]

    def embedded(self, modality: str, real: bool = False) -> np.ndarray:
        """Return the matcher's vectors of samples, or of the true data, [R, E]; NaN where these are not finite."""
        return self.call.embedded(modality, real)[self.inside]

    def latents(self, modality: str) -> np.ndarray | None:
        """Return the generated latents [R, D_m], or None where the system has none of each modality."""
        latents = self.call.generated.latents
        return None if latents is None else np.asarray(latents[modality])[self.inside, 0]

    def encoded(self, modality: str) -> np.ndarray:
        """Return the latents of the true data [R, D_m], of systems that encode."""
        return np.asarray(self.call.encoded[modality])[self.inside]


class Evaluation(NamedTuple):
    """What was measured.

    Attributes:
      metrics: estimates by flat name, such as ``coherence/given_rest``.
      not_available: why a metric is missing, by its name.
      figures: arrays for the report: sample grids (see `sample_grids`), and ``class_shares`` [M, num_classes].
    """

    metrics: dict[str, Estimate]
    not_available: dict[str, str]
    figures: dict[str, np.ndarray]


class Plan(NamedTuple):
    """What is going to be generated.

    Attributes:
      num_examples: rows that are conditioned on.
      num_unconditional: joint samples per repeat.
      modalities: the names of those that are generated.
      known: the names of all that the data have.
      num_repeats: how often everything is generated anew.
    """

    num_examples: int
    num_unconditional: int
    modalities: tuple[str, ...]
    known: tuple[str, ...]
    num_repeats: int = 1


@checked_dataclass
class NoOptions:
    """Of metrics that have none."""


class Metric(abc.ABC):
    """What looks at generated and real data and ends in named numbers, for one subject.

    Attributes:
      Options: a `checked_dataclass`, whose fields are those of the metric's group in the config.
      asks: what is to be generated; () for metrics that need no samples.
    """

    Options: ClassVar[type] = NoOptions
    asks: tuple[Ask, ...] = ()

    def __init__(self, options: Any, scene: Scene):
        """Prepare to judge the subject of `scene`."""
        self.options, self.scene = options, scene

    @classmethod
    def check(cls, options: Any, plan: Plan) -> None:
        """Raise `SbmError` for options that can not work with a plan, before anything is trained.

        A metric with names of modalities among its options makes its asks here too: `ask_given` checks the names.
        """
        del options, plan

    @classmethod
    def check_data(cls, options: Any, test: Split) -> None:
        """Raise `SbmError` for held-out rows that the metric can not judge, before anything is trained."""
        del options, test

    def look(self, draw: Draw) -> None:
        """Take what the numbers need of one draw of `asks`, while it is in memory."""
        del draw

    @abc.abstractmethod
    def result(self) -> Evaluation:
        """Return the numbers, and why others are not there, once everything is generated."""

    def of_real(self, train: Split) -> dict[str, Estimate]:
        """Return what real training rows get in the place of samples, by name; {} where that means nothing."""
        del train
        return {}


def prefixed(group: str, question: str, name: str) -> str:
    """Return the name of a metric of one question: without it where data have one label a row."""
    return f"{group}/{name}" if question == LABEL else f"{group}/{question}/{name}"


def check_targets(metric: str, options: Any, modalities: Sequence[str]) -> None:
    """Raise `SbmError` where the family ``"to_target"`` is asked for a target that is not generated."""
    for name in options.targets if TO_TARGET in options.sets else ():
        if name not in modalities:
            raise unknown(f"modality in config.evaluation.metrics.{metric}.targets:", name, modalities)


ALONE = "there is one modality only, so none can be given"
NO_CLASSIFIER = "there is no classifier that tells which class a sample shows"
NO_LABELS = "the data have no labels"
