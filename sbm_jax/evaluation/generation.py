"""Run many generation requests, each with its own observed set, through one compiled batch shape."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.evaluation.coherence import NO_CLASS
from sbm_jax.evaluation.observed_sets import Group
from sbm_jax.types import Array, Data, Generated, Key

ClassifierFn = Callable[[Data], Mapping[str, Array]]  # {modality: [B, *shape]} -> {modality: int [B]}
ReconstructFn = Callable[[Data], Data]
EncodeFn = Callable[[Data], Mapping[str, Array]]  # {modality: [B, *shape]} -> {modality: [B, D_m]}
# Number of batches -> context that yields a function, which is told how many are just done.
ProgressFn = Callable[[int], AbstractContextManager[Callable[[int], None]]]


class GenerateFn(Protocol):
    """A system's `generate` with everything but these arguments bound, already compiled."""

    def __call__(self, key: Key, data: Data, observed: Array, num_samples: int) -> Generated:
        """Return `num_samples` samples per row."""


class Requests(NamedTuple):
    """Samples to be drawn.

    Attributes:
      rows: int [R], the rows of the data set whose observed modalities are given.
      observed: bool [R, M], True = given.
    """

    rows: np.ndarray
    observed: np.ndarray


class Call(NamedTuple):
    """One compiled call.

    Attributes:
      num_rows: rows asked for, without padding.
      info: the scalars that the system reports.
    """

    num_rows: int
    info: dict[str, float]


class Part(NamedTuple):
    """The samples of one group in one compiled call.

    Attributes:
      group: what it is for.
      rows: int [R], rows of the data set.
      inside: int [R], where they are in the arrays of the call.
      generated: what was generated, [B, 1, ...].
      given: the true data of the call, {modality: float [B, *shape]}.
    """

    group: Group
    rows: np.ndarray
    inside: np.ndarray
    generated: Generated
    given: Mapping[str, np.ndarray]


class Outcome(NamedTuple):
    """What came of the requests, by group.

    Attributes:
      predicted: {group: int [R, M]}, the class seen in each modality; empty without a classifier.
      data: {group: {modality: [R, *shape]}} of the groups that were to be kept.
      calls: one entry per compiled call.
    """

    predicted: dict[Group, np.ndarray]
    data: dict[Group, dict[str, np.ndarray]]
    calls: list[Call]


def as_float(values: np.ndarray) -> np.ndarray:
    """Return data as float32, uint8 images in [0, 1]."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32)


def batches(num_rows: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (indices [batch_size], number of real ones): the last batch is padded with index 0."""
    for start in range(0, num_rows, batch_size):
        count = min(batch_size, num_rows - start)
        indices = np.zeros(batch_size, np.int64)
        indices[:count] = np.arange(start, start + count)
        yield indices, count


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return how many padded batches hold `num_rows` rows."""
    return -(-num_rows // batch_size)


def classify(classifier_fn: ClassifierFn, data: Data, modalities: Sequence[str]) -> np.ndarray:
    """Return the class seen in each modality, int [B, M], `NO_CLASS` where the data are not finite."""
    labels = classifier_fn({name: data[name] for name in modalities})
    columns = []
    for name in modalities:
        values = jnp.asarray(data[name])
        finite = jnp.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        columns.append(np.where(np.asarray(finite), np.asarray(labels[name]), NO_CLASS))
    return np.stack(columns, axis=1)


def run(
    generate_fn: GenerateFn,
    classifier_fn: ClassifierFn | None,
    data: Mapping[str, np.ndarray],
    requests: Mapping[Group, Requests],
    key: Key,
    batch_size: int,
    advance: Callable[[int], None],
    keep: Collection[Group] = (),
    watch: Collection[Callable[[Part], None]] = (),
) -> Outcome:
    """Draw one sample for every request; requests of different groups share batches.

    Args:
      generate_fn: the compiled generator.
      classifier_fn: the classifier, or None.
      data: {modality: [N, *shape]}, in the order of the columns of `observed`.
      requests: the requests of each group.
      key: batch i uses `fold_in(key, i)`.
      batch_size: rows per compiled call.
      advance: called with 1 after each batch.
      keep: the groups whose samples are returned, not only their classes.
      watch: what is shown every part of the samples, while it is in memory.
    """
    modalities = tuple(data)
    rows = np.concatenate([group.rows for group in requests.values()])
    observed = np.concatenate([group.observed for group in requests.values()])
    groups = list(requests)
    numbers = np.repeat(np.arange(len(groups)), [len(group.rows) for group in requests.values()])
    kept = np.array([group in keep for group in groups])[numbers]
    calls, predicted, samples = [], [], {name: [] for name in modalities}
    for index, (indices, count) in enumerate(batches(len(rows), batch_size)):
        given = observed[indices]
        given[count:] = True  # nothing is sampled in padding, so nothing can diverge there
        batch = {name: as_float(values[rows[indices]]) for name, values in data.items()}
        generated = jax.block_until_ready(generate_fn(jax.random.fold_in(key, index), batch, given, 1))
        info = {name: float(np.sum(value)) for name, value in generated.info.items()}
        calls.append(Call(count, info))
        sample = {name: generated.data[name][:, 0] for name in modalities}
        if classifier_fn is not None:
            predicted.append(classify(classifier_fn, sample, modalities)[:count])
        for number in np.unique(numbers[indices[:count]]):
            inside = np.flatnonzero(numbers[indices[:count]] == number)
            for look in watch:
                look(Part(groups[number], rows[indices[inside]], inside, generated, batch))
        wanted = np.flatnonzero(kept[indices[:count]])
        if len(wanted):
            for name in modalities:
                samples[name].append(np.asarray(sample[name])[wanted])
        advance(1)
    return _by_group(requests, keep, calls, predicted, samples)


def _by_group(
    requests: Mapping[Group, Requests],
    keep: Collection[Group],
    calls: list[Call],
    predicted: list[np.ndarray],
    samples: dict[str, list[np.ndarray]],
) -> Outcome:
    """Cut the results of consecutive batches back into the groups of the requests."""
    outcome = Outcome({}, {}, calls)
    if predicted:
        ends = np.cumsum([len(group.rows) for group in requests.values()])
        parts = np.split(np.concatenate(predicted), ends[:-1])
        outcome.predicted.update(zip(requests, parts, strict=True))
    kept = [group for group in requests if group in keep]
    if kept:
        ends = np.cumsum([len(requests[group].rows) for group in kept])
        columns = {name: np.split(np.concatenate(parts), ends[:-1]) for name, parts in samples.items()}
        for position, group in enumerate(kept):
            outcome.data[group] = {name: parts[position] for name, parts in columns.items()}
    return outcome
