"""Runs many generation requests, each with its own observed set, through one compiled batch shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.metrics.base import Call, Cost, Draw, Scene
from sbm_jax.evaluation.observed_sets import UNCONDITIONAL, Ask
from sbm_jax.types import Key


class Requests(NamedTuple):
    """Samples to draw.

    Attributes:
      rows: int [R], indices of the examples whose observed modalities are given.
      observed: bool [R, M], True = given.
    """

    rows: np.ndarray
    observed: np.ndarray


def requests(ask: Ask, scene: Scene, key: Key, num_unconditional: int) -> Requests:
    """Return the requests of an ask, for the examples that have all given modalities.

    Args:
      ask: the samples to generate.
      scene: the scene with the examples.
      key: key of the repeat.
      num_unconditional: number of samples if nothing is given.
    """
    num_rows = num_unconditional if ask.family == UNCONDITIONAL else len(scene.examples)
    rows = np.zeros(num_rows, int) if ask.family == UNCONDITIONAL else np.arange(num_rows)
    observed = observed_sets.masks(ask, key, num_rows, scene.modalities)
    presence = scene.examples.presence(scene.modalities)
    if presence is not None:
        there = (presence[rows] | ~observed).all(axis=1)
        rows, observed = rows[there], observed[there]
    return Requests(*(np.repeat(array[: ask.num_rows], ask.num_samples, axis=0) for array in (rows, observed)))


def run(
    scene: Scene,
    wanted: Mapping[Ask, Requests],
    repeat: int,
    key: Key,
    look: Callable[[Draw], None],
    advance: Callable[[int], None],
) -> None:
    """Draw one sample for every request; requests of different asks share batches.

    Args:
      scene: the subject and the examples; the cost of each call is added to `scene.costs`.
      wanted: the requests of each ask.
      repeat: index of the repeat.
      key: key of the repeat; batch i uses `fold_in(key, i)`.
      look: called with every draw while it is in memory.
      advance: called with 1 after each batch.
    """
    data = {name: scene.examples.data[name] for name in scene.modalities}
    rows = np.concatenate([part.rows for part in wanted.values()])
    observed = np.concatenate([part.observed for part in wanted.values()])
    asks = list(wanted)
    numbers = np.repeat(np.arange(len(asks)), [len(part.rows) for part in wanted.values()])
    for index, (indices, count) in enumerate(batches(len(rows), scene.batch_size)):
        mask = observed[indices]
        mask[count:] = True  # padding samples nothing, so it cannot diverge
        batch = {name: in_units(values[rows[indices]]) for name, values in data.items()}
        given = _attacked(scene, batch, [asks[number] for number in numbers[indices]])
        generated = jax.block_until_ready(scene.subject.generate(jax.random.fold_in(key, index), given, mask, 1))
        info = {name: float(np.sum(value)) for name, value in generated.info.items()}
        scene.costs[repeat].append(Cost(count, info))
        call = Call(scene, batch, generated)
        for number in np.unique(numbers[indices[:count]]):
            inside = np.flatnonzero(numbers[indices[:count]] == number)
            look(Draw(asks[number], repeat, rows[indices[inside]], mask[inside], inside, call))
        advance(1)


def _attacked(scene: Scene, batch: dict[str, np.ndarray], asks: Sequence[Ask]) -> dict[str, np.ndarray]:
    """Return the rows as given to the system, each modified by the attack of its ask."""
    given = dict(batch)
    for source, target in dict.fromkeys(ask.misread for ask in asks if ask.attack):
        strengths = np.array([ask.attack if ask.misread == (source, target) else 0.0 for ask in asks], np.float32)
        given[source] = scene.tools.readers[source, target].attack(given[source], batch[target], strengths)
    return given
