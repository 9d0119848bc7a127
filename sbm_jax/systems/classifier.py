"""Classifiers that judge generated data, trained on real training data; no system samples from their stages."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax import parallel
from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.labels import array_of
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import require, unknown
from sbm_jax.losses.classification import cross_entropy_terms
from sbm_jax.networks.classifiers import DigitClassifier, SequenceClassifier, SeriesClassifier, VectorClassifier
from sbm_jax.types import LABEL, Array, Data, Dataset, Key, Metrics, Modality, Params, Split, Stage, TrainingConfig


@checked_dataclass
class ClassifierConfig:
    """Options of the evaluation classifiers.

    Attributes:
      training: see `types.TrainingConfig`.
      widths: channels of the convolutions.
      hidden: units of the hidden layer.
      dropout: dropout rate after the hidden layer, or of `SeriesClassifier`.
      series: {modality whose first axis is time: largest random shift of training rows along it, in entries}. Videos
        are series without being named here.
    """

    training: TrainingConfig = TrainingConfig()
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 512
    dropout: float = 0.0
    series: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        positive = bool(self.widths) and min(self.widths) >= 1
        require(positive, "classifier.widths", self.widths, "one or more positive sizes")
        require(self.hidden >= 1, "classifier.hidden", self.hidden, "at least 1")
        require(0 <= self.dropout < 1, "classifier.dropout", self.dropout, "0 to less than 1")
        for name, shift in self.series.items():
            whole = isinstance(shift, int) and shift >= 0
            require(whole, f"classifier.series.{name}", shift, "a whole number, 0 or more")


@dataclasses.dataclass(frozen=True)
class Classifiers:
    """The judges: one classifier for all modalities of the same shape, and one for each of ids or in `config.series`.

    Every classifier answers all questions.

    Attributes:
      modalities: modalities to judge.
      num_classes: {question: number of classes}; questions are keys of `Split.labels`.
      config: see `ClassifierConfig`.
      seed: the run's seed.
      stage_name: name of the training stage.

    Raises:
      SbmError: if `config.series` names an unknown modality or one of ids.
    """

    modalities: tuple[Modality, ...]
    num_classes: Mapping[str, int]
    config: ClassifierConfig
    seed: int = 0
    stage_name: ClassVar[str] = "classifier"

    def __post_init__(self):
        numbers = {modality.name: modality for modality in self.modalities if not modality.vocabulary_size}
        for name in self.config.series:
            if name not in numbers:
                raise unknown("modality of numbers in classifier.series:", name, numbers)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Names of the modalities by shape; modalities of ids, whose meanings differ, and series stand alone."""
        groups: dict[str, list[str]] = {}
        for modality in self.modalities:
            group = "x".join(map(str, modality.shape))
            if modality.vocabulary_size:
                group = f"ids of {modality.name}"
            elif modality.name in self.config.series:
                group = f"series of {modality.name}"
            groups.setdefault(group, []).append(modality.name)
        return groups

    def _network(self, name: str) -> nn.Module:
        """Return the classifier network of a modality."""
        modality = next(modality for modality in self.modalities if modality.name == name)
        own = {"hidden": self.config.hidden, "dropout": self.config.dropout}
        total = sum(self.num_classes.values())
        if modality.vocabulary_size:
            return SequenceClassifier(total, modality.vocabulary_size, self.config.widths[-1], **own)
        if modality.name in self.config.series or len(modality.shape) == 4:
            return SeriesClassifier(tuple(self.num_classes.values()), self.config.widths, self.config.dropout)
        if len(modality.shape) == 3:
            return DigitClassifier(total, self.config.widths, **own)
        return VectorClassifier(total, **own)

    def _init(self, key: Key) -> Params:
        like = {modality.name: jnp.zeros((1, *modality.shape), modality.dtype) for modality in self.modalities}
        keys = jax.random.split(key, len(self.groups))
        return {
            group: self._network(names[0]).init(one_key, like[names[0]])["params"]
            for (group, names), one_key in zip(self.groups.items(), keys, strict=True)
        }

    def logits(self, params: Params, data: Data) -> dict[str, dict[str, Array]]:
        """Return logits {question: {name: [B, num_classes]}} for data {name: [B, *shape]}."""
        found = {
            name: self._answers(self._network(name).apply({"params": params[group]}, data[name]))
            for group, names in self.groups.items()
            for name in names
            if name in data
        }
        return {question: {name: own[question] for name, own in found.items()} for question in self.num_classes}

    def _answers(self, logits: Array) -> dict[str, Array]:
        """Split the output of a network into the logits {question: [B, num_classes]}."""
        ends = np.cumsum(list(self.num_classes.values()))[:-1].tolist()
        return dict(zip(self.num_classes, jnp.split(logits, ends, axis=-1), strict=True))

    def predict_fn(self, params: Params, question: str) -> Callable[[Data], dict[str, Array]]:
        """Return the compiled `data {name: [B, *shape]} -> {name: int classes [B]}` for one question."""

        @parallel.over_rows
        def predict(params, data):
            answers = self.logits(params, data)[question]
            return {name: jnp.argmax(logits, axis=-1) for name, logits in answers.items()}

        return lambda data: predict(params, data)

    def features_fn(self, params: Params, name: str) -> Callable[[Array], Array]:
        """Return the compiled `images [B, *shape] -> hidden features [B, hidden]` of one modality."""
        group = next(group for group, names in self.groups.items() if name in names)

        @parallel.over_rows
        def features(params, images):
            images = in_units({name: images})[name]
            return self._network(name).apply({"params": params}, images, features=True)

        return lambda images: features(params[group], images)

    def _loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any], train: bool = True
    ) -> tuple[Array, Metrics]:
        del upstream
        data = in_units(batch["data"])
        losses, hits = [], []
        keys = jax.random.split(key, len(self.groups))
        for (group, names), one_key in zip(self.groups.items(), keys, strict=True):
            # Classify one random modality per row: all get their share, at the cost of one.
            choice_key, dropout_key = jax.random.split(one_key)
            shift = self.config.series.get(names[0], 0) if train else 0
            if shift:
                choice_key, shift_key = jax.random.split(choice_key)
            choice, weight = self._choose(choice_key, names, batch)
            stacked = jnp.stack([data[name] for name in names], axis=1)
            x = stacked[jnp.arange(len(choice)), choice]
            if shift:
                x = _moved(shift_key, x, shift)
            logits = self._network(names[0]).apply(
                {"params": params[group]}, x, train=train, rngs={"dropout": dropout_key}
            )
            for question, answers in self._answers(logits).items():
                loss, hit = cross_entropy_terms(answers, batch[array_of(question)])
                losses.append((weight * loss).mean())
                hits.append((weight * hit).mean())
        return sum(losses), {"accuracy": sum(hits) / len(hits)}

    def _choose(self, key: Key, names: Sequence[str], batch: Mapping[str, Any]) -> tuple[Array, Array | float]:
        """Choose a present modality for each row, int [B]; also return weights of mean 1, 0 for rows without any."""
        if "present" not in batch:
            num_rows = len(batch["data"][names[0]])
            return jax.random.randint(key, (num_rows,), 0, len(names)), 1.0
        order = [modality.name for modality in self.modalities]
        present = batch["present"][:, jnp.array([order.index(name) for name in names])]
        has = present.any(axis=1)
        choice = jax.random.categorical(key, jnp.where(present | ~has[:, None], 0.0, -jnp.inf))
        return choice, has / jnp.maximum(has.mean(), 1e-6)

    def stage(self, dataset: Dataset) -> Stage:
        """Return the training stage."""

        def rows(split: Split):
            labels = {array_of(question): split.labels[question] for question in self.num_classes}
            return split.rows([modality.name for modality in self.modalities], **labels)

        return Stage(
            name=self.stage_name,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": {modality.name: _settings(modality) for modality in self.modalities},
                "classifier": plain(self.config),
                **({} if [*self.num_classes] == [LABEL] else {"questions": dict(self.num_classes)}),
            },
            init=lambda key, upstream: self._init(key),
            training=self.config.training,
            loss=self._loss,
            rows=lambda upstream: rows(dataset.train),
            validation_rows=lambda upstream: rows(dataset.validation),
            validation_loss=functools.partial(self._loss, train=False),
        )


def _moved(key: Key, x: Array, shift: int) -> Array:
    """Shift each row of [B, T, ...] in time by up to `shift` entries; repeat the first or last to fill the gap."""
    places = jnp.arange(x.shape[1])[None] + jax.random.randint(key, (len(x), 1), -shift, shift + 1)
    return jax.vmap(lambda row, places: row[places])(x, jnp.clip(places, 0, x.shape[1] - 1))


def _settings(modality: Modality) -> list[int] | dict[str, Any]:
    """Return the settings of a modality that its network depends on."""
    shape = list(modality.shape)
    return {"shape": shape, "vocabulary_size": modality.vocabulary_size} if modality.vocabulary_size else shape
