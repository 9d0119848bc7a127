"""The interface of metrics: the samples they request, how they collect them, and the estimates they return.

A metric is one class with its own checked options. Built-in metrics are the entries of `metrics.METRICS`; a config
names one of another package as ``"package.module:CLASS"``.
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
# (name of the space or "" for the best, wanted modalities) -> feature space or None, and {metric: why it is missing}
SpaceFn = Callable[[str, Sequence[str]], tuple[FeatureSpace | None, dict[str, str]]]

NO_CLASS = -1
"""The class of a sample that is not finite: it is never right, agrees with nothing and counts towards no class."""


class GenerateFn(Protocol):
    """A system's compiled `generate`, with all other arguments bound."""

    def __call__(self, key: Key, data: Data, observed: Array, num_samples: int) -> Generated:
        """Return `num_samples` samples per row."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """The evaluated system: its compiled functions, None for those that it lacks.

    Attributes:
      generate: `(key, data, observed [B, M], num_samples) -> Generated`; None if real data are evaluated.
      reconstruct: `{modality: [B, *shape]} -> {modality: [B, *shape]}`.
      encode: `{modality: [B, *shape]} -> {modality: [B, D_m]}`, in the units of generated latents.
      log_weights: `(key, data, S) -> log p(x, z_s) - log q(z_s | x) [B, S]`, in nats.
      costly_weights: whether only one log weight per row should be computed.
      posteriors: `{modality: [B, *shape]} -> {modality: (mean [B, D_m], log variance or None)}` of each codec.
      codec_reconstructions: like `reconstruct`, by the codecs alone; available if `posteriors` is.
    """

    generate: GenerateFn | None = None
    reconstruct: ReconstructFn | None = None
    encode: EncodeFn | None = None
    log_weights: LogWeightsFn | None = None
    costly_weights: bool = False
    posteriors: PosteriorsFn | None = None
    codec_reconstructions: ReconstructFn | None = None


def no_space(name: str, asked: Sequence[str]) -> tuple[None, dict[str, str]]:
    """Return no feature space, with the reason."""
    del name, asked
    return None, {"inception/fid": "there are no features to compare in"}


class ReaderFns(NamedTuple):
    """A reader, which predicts a target modality from a source modality.

    Attributes:
      read: `sources [B, *shape] -> targets [B, *shape']`, the expected targets.
      attack: `(sources, targets, strengths [B]) -> sources`, modified to be misread.
    """

    read: Callable[[np.ndarray], np.ndarray]
    attack: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tools:
    """The networks with which subjects are evaluated, the same for all subjects.

    Attributes:
      classifiers: {question: classifier `{modality: [B, *shape]} -> {modality: int [B]}`}.
      num_classes: {question: number of classes}, for questions with a classifier.
      space: finds the feature space in which samples are compared with real data.
      readers: {(source, target): reader}.
      pictures: names of the modalities that are viewable images.
      embed: `{modality: [B, *shape]} -> {modality: [B, E]}`, unit vectors in a shared space; None without a matcher.
      clip: CLIP's embedding of images and texts, like `embed`, NaN where data are not finite; None without its weights.
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
      num_rows: number of requested rows, without padding.
      info: scalars reported by the system.
    """

    num_rows: int
    info: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that a metric may use in addition to the samples that it requests.

    Attributes:
      subject: the evaluated system.
      tools: the networks that evaluate it.
      modalities: names, in the column order of observed sets.
      test: the held-out rows.
      order: int [N], indices of all rows of `test` in the order of conditioning: complete rows first.
      examples: the rows to condition on, in this order.
      batch_size: rows per compiled call.
      key: `number -> key` for a metric's own random draws; each metric uses its own number.
      costs: for each repeat, the costs of the generator's calls so far.
      train: training rows, the same for all subjects; None if unknown.
      trained_on: the rows that the subject was trained on; variations may have fewer.
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
        """The questions with both a classifier and true answers."""
        return [question for question in self.tools.classifiers if question in self.examples.labels]

    @functools.cached_property
    def complete(self) -> Split:
        """The examples that have all modalities, which come first."""
        return self.examples.take(np.arange(self.examples.having(self.modalities).sum()))

    def real(self, count: int = 0) -> dict[str, np.ndarray]:
        """Return {modality: [n, *shape]}, the first `count` held-out rows that have each modality, or all if 0."""
        found = {}
        for name in self.modalities:
            rows = self.order[self.test.having([name])[self.order]]
            found[name] = self.test.read([name], rows[: count or None])[name]
        return found

    def classify(self, question: str, data: Data) -> np.ndarray:
        """Return the predicted class of each modality, int [B, M], `NO_CLASS` where the data are not finite."""
        seen = self.tools.classifiers[question]({name: data[name] for name in self.modalities})
        columns = []
        for name in self.modalities:
            columns.append(np.where(finite_rows(data[name]), np.asarray(seen[name]), NO_CLASS))
        return np.stack(columns, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One compiled call of the generator, with one sample per row; derived values are cached.

    Attributes:
      scene: the scene of the call.
      given: true data of the rows, {modality: float [B, *shape]}.
      generated: result of the call, [B, 1, ...].
    """

    scene: Scene
    given: Mapping[str, np.ndarray]
    generated: Generated

    @functools.cached_property
    def samples(self) -> dict[str, Array]:
        """The samples, {modality: [B, *shape]}."""
        return {name: self.generated.data[name][:, 0] for name in self.scene.modalities}

    @functools.cached_property
    def classes(self) -> Callable[[str], np.ndarray]:
        """The function from a question to the predicted class of each modality of each row, int [B, M]."""
        return functools.cache(lambda question: self.scene.classify(question, self.samples))

    @functools.cached_property
    def readings(self) -> Callable[[str, str], np.ndarray]:
        """The function from source and target to a reader's prediction for each sample of the source, [B, *shape]."""
        readers = self.scene.tools.readers
        return functools.cache(lambda source, target: readers[source, target].read(np.asarray(self.samples[source])))

    @functools.cached_property
    def embedded(self) -> Callable[[str, bool], np.ndarray]:
        """The function from (modality, real) to the matcher's embeddings [B, E] of samples or, if `real`, true data.

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
      ask: the ask that requested them.
      repeat: index of the repeat.
      rows: int [R], indices into `Scene.examples`.
      observed: bool [R, M], True = given.
      inside: int [R], indices of the samples in the arrays of the call.
      call: the call, shared by all its draws.
    """

    ask: Ask
    repeat: int
    rows: np.ndarray
    observed: np.ndarray
    inside: np.ndarray
    call: Call

    def generated(self, modality: str) -> np.ndarray:
        """Return the samples of a modality, float [R, *shape]; the given data where it was given."""
        return np.asarray(self.call.samples[modality])[self.inside]

    def real(self, modality: str) -> np.ndarray:
        """Return the true data of the rows, float [R, *shape]."""
        return self.call.given[modality][self.inside]

    def labels(self, question: str) -> np.ndarray:
        """Return the true answers to a question, int [R]."""
        return self.call.scene.examples.labels[question][self.rows]

    def classes(self, question: str) -> np.ndarray:
        """Return the class that a classifier predicts for each modality, int [R, M], `NO_CLASS` where not finite."""
        return self.call.classes(question)[self.inside]

    def read(self, source: str, target: str) -> np.ndarray:
        """Return the target that a reader predicts from the samples of a source, float [R, *shape]."""
        return self.call.readings(source, target)[self.inside]

    def embedded(self, modality: str, real: bool = False) -> np.ndarray:
        """Return the matcher's embeddings [R, E] of samples or, if `real`, true data; NaN where not finite."""
        return self.call.embedded(modality, real)[self.inside]

    def latents(self, modality: str) -> np.ndarray | None:
        """Return the generated latents [R, D_m], or None if the system has no latents per modality."""
        latents = self.call.generated.latents
        return None if latents is None else np.asarray(latents[modality])[self.inside, 0]

    def encoded(self, modality: str) -> np.ndarray:
        """Return the latents of the true data [R, D_m], for systems that encode."""
        return np.asarray(self.call.encoded[modality])[self.inside]


class Evaluation(NamedTuple):
    """The results of an evaluation.

    Attributes:
      metrics: {flat name, such as ``coherence/given_rest``: estimate}.
      not_available: {name: why the metric is missing}.
      figures: arrays for the report: sample grids (see `sample_grids`), and ``class_shares`` [M, num_classes].
    """

    metrics: dict[str, Estimate]
    not_available: dict[str, str]
    figures: dict[str, np.ndarray]


class Plan(NamedTuple):
    """How much will be generated.

    Attributes:
      num_examples: rows to condition on.
      num_unconditional: joint samples per repeat.
      modalities: names of the generated modalities.
      known: names of all modalities of the data.
      num_repeats: number of repeats.
    """

    num_examples: int
    num_unconditional: int
    modalities: tuple[str, ...]
    known: tuple[str, ...]
    num_repeats: int = 1


@checked_dataclass
class NoOptions:
    """The options of metrics that have none."""


class Metric(abc.ABC):
    """Computes named estimates from generated and real data, for one subject.

    Attributes:
      Options: a `checked_dataclass` with the fields of the metric's group in the config.
      asks: the samples to generate; () for metrics that need none.
    """

    Options: ClassVar[type] = NoOptions
    asks: tuple[Ask, ...] = ()

    def __init__(self, options: Any, scene: Scene):
        """Prepare to evaluate the subject of `scene`."""
        self.options, self.scene = options, scene

    @classmethod
    def check(cls, options: Any, plan: Plan) -> None:
        """Raise `SbmError` if the options cannot work with a plan, before anything is trained.

        A metric whose options name modalities should check the names here, for example with `ask_given`.
        """
        del options, plan

    @classmethod
    def check_data(cls, options: Any, test: Split) -> None:
        """Raise `SbmError` if the metric cannot use the held-out rows, before anything is trained."""
        del options, test

    def look(self, draw: Draw) -> None:
        """Collect what the metric needs from one draw of `asks`, while it is in memory."""
        del draw

    @abc.abstractmethod
    def result(self) -> Evaluation:
        """Return the estimates, and why others are missing, once everything is generated."""

    def of_real(self, train: Split) -> dict[str, Estimate]:
        """Return the metrics of real training rows in place of samples, by name; {} where that is meaningless."""
        del train
        return {}


def prefixed(group: str, question: str, name: str) -> str:
    """Return the name of a question's metric; the question is omitted if data have one label per row."""
    return f"{group}/{name}" if question == LABEL else f"{group}/{question}/{name}"


def check_targets(metric: str, options: Any, modalities: Sequence[str]) -> None:
    """Raise `SbmError` if the family ``"to_target"`` has a target that is not generated."""
    for name in options.targets if TO_TARGET in options.sets else ():
        if name not in modalities:
            raise unknown(f"modality in config.evaluation.metrics.{metric}.targets:", name, modalities)


ALONE = "there is one modality only, so none can be given"
NO_CLASSIFIER = "there is no classifier that tells which class a sample shows"
NO_LABELS = "the data have no labels"
