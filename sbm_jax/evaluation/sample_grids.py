"""Grids of samples for the report.

A grid is a set of arrays under ``samples/<grid>/`` for E examples of L lines with one cell per modality:
``data/<modality>`` [E, L, *shape], and ``observed`` bool [E, L, M].
"""

from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.generation import Requests
from sbm_jax.evaluation.metrics.base import Draw
from sbm_jax.evaluation.observed_sets import Ask

NUM_DRAWS = 3  # lines of samples per example in the grid "given_rest"
NUM_UNCONDITIONAL = 16

GIVEN_ONE, GIVEN_REST, UNCONDITIONAL = (Ask(f"grid {name}") for name in ("given_one", "given_rest", "unconditional"))

Samples = Mapping[Ask, Mapping[str, np.ndarray]]  # {grid: {modality: [R, *shape]}}


class Grids:
    """Collects the samples that fill the grids."""

    def __init__(self, rows: np.ndarray, num_modalities: int):
        """Prepare grids for the examples at indices `rows`, int [E]."""
        self.rows = rows
        self.requests = requests(rows, num_modalities)
        self.samples: dict[Ask, dict[str, list[np.ndarray]]] = {grid: {} for grid in self.requests}

    def look(self, draw: Draw) -> None:
        """Collect the samples of one draw."""
        for name in draw.call.samples:
            self.samples[draw.ask].setdefault(name, []).append(draw.generated(name))

    def figures(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the arrays of all grids.

        Args:
          data: data of all examples, {modality: [N, *shape]}.
        """
        samples = {
            grid: {name: np.concatenate(values) for name, values in parts.items()}
            for grid, parts in self.samples.items()
        }
        return grids(samples, data, self.rows)


def examples(labels: Mapping[str, np.ndarray], num_rows: int, count: int) -> np.ndarray:
    """Return the indices of up to `count` rows, with distinct answers to the first question where possible."""
    if not labels:
        return np.arange(min(count, num_rows))
    _, first = np.unique(next(iter(labels.values())), return_index=True)
    first = first[np.linspace(0, len(first) - 1, min(count, len(first))).astype(int)]
    others = np.setdiff1d(np.arange(num_rows), first)
    return np.concatenate([first, others])[:count]


def requests(rows: np.ndarray, num_modalities: int) -> dict[Ask, Requests]:
    """Return the requests whose samples fill the grids.

    Args:
      rows: int [E], indices of the examples.
      num_modalities: M.
    """
    identity = np.eye(num_modalities, dtype=bool)
    repeated = np.repeat(rows, num_modalities)
    drawn = np.repeat(rows, NUM_DRAWS * num_modalities)
    nothing = np.zeros((NUM_UNCONDITIONAL, num_modalities), bool)
    groups = {
        GIVEN_ONE: Requests(repeated, np.tile(identity, (len(rows), 1))),
        GIVEN_REST: Requests(drawn, np.tile(~identity, (len(rows) * NUM_DRAWS, 1))),
        UNCONDITIONAL: Requests(np.repeat(rows[:1], NUM_UNCONDITIONAL), nothing),
    }
    if num_modalities == 1:
        return {UNCONDITIONAL: groups[UNCONDITIONAL]}
    return groups


def grids(samples: Samples, data: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of the grids that have samples.

    Args:
      samples: the samples of `requests`.
      data: data of all examples, {modality: [N, *shape]}.
      rows: int [E], indices of the examples.
    """
    figures = {}
    if GIVEN_ONE in samples:
        figures |= given_one(samples[GIVEN_ONE], len(rows))
        figures |= given_rest(samples[GIVEN_REST], data, rows)
    figures |= unconditional(samples[UNCONDITIONAL])
    return figures


def given_one(samples: Mapping[str, np.ndarray], num_examples: int) -> dict[str, np.ndarray]:
    """Return a grid with M lines per example; modality i is given in line i."""
    num_modalities = len(samples)
    data = {name: _fold(values, num_examples, num_modalities) for name, values in samples.items()}
    observed = np.broadcast_to(np.eye(num_modalities, dtype=bool), (num_examples, num_modalities, num_modalities))
    return _named("given_one", data, observed)


def given_rest(
    samples: Mapping[str, np.ndarray], data: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a grid with the true data in the first line; in other lines each cell is drawn given the true others."""
    num_modalities = len(samples)
    cells = {}
    for target, (name, values) in enumerate(samples.items()):
        drawn = _fold(values, len(rows), NUM_DRAWS, num_modalities)[:, :, target]
        cells[name] = np.concatenate([in_units(data[name][rows])[:, None], drawn], axis=1)
    observed = np.zeros((len(rows), 1 + NUM_DRAWS, num_modalities), bool)
    observed[:, 0] = True
    return _named("given_rest", cells, observed)


def unconditional(samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a grid of one example, each line of which is a joint sample."""
    data = {name: values[None] for name, values in samples.items()}
    count = len(next(iter(samples.values())))
    return _named("unconditional", data, np.zeros((1, count, len(samples)), bool))


def reconstructions(data: Mapping[str, np.ndarray], reconstructed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a grid with two lines per example: the data, and their reconstructions.

    Args:
      data: {modality: [E, *shape]}.
      reconstructed: reconstructions, {modality: [E, *shape]}.
    """
    cells = {name: np.stack([values, reconstructed[name]], axis=1) for name, values in data.items()}
    count = len(next(iter(data.values())))
    observed = np.zeros((count, 2, len(cells)), bool)
    observed[:, 0] = True
    return _named("reconstruction", cells, observed)


def _fold(values: np.ndarray, *leading: int) -> np.ndarray:
    return values.reshape(*leading, *values.shape[1:])


def _named(grid: str, data: Mapping[str, np.ndarray], observed: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {f"samples/{grid}/data/{name}": values for name, values in data.items()}
    return {**arrays, f"samples/{grid}/observed": np.array(observed)}
