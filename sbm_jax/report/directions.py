"""The table of directions: coherence of each modality, given each other one alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sbm_jax.report.summary import Metrics

_FROM_ONE = r"coherence/(?:([^/]+)/)?from/([^/]+)/to/([^/]+)"


class Directions(NamedTuple):
    """The directions of one system and one question.

    Attributes:
      system: name of the system.
      question: the classifier's question; "" if the data have only one.
      names: names of the M modalities.
      cells: estimates [M][M], indexed by the given and then the generated modality, with the accuracy on
        reconstructions on the diagonal; None where there is no number.
      real: accuracy on real data of each modality, [M].
    """

    system: str
    question: str
    names: tuple[str, ...]
    cells: list[list[Mapping[str, Any] | None]]
    real: list[Mapping[str, Any] | None]

    @property
    def has_real(self) -> bool:
        """Whether the accuracy on real data was measured."""
        return any(self.real)


def directions(systems: Mapping[str, Metrics]) -> Iterator[Directions]:
    """Yield the table of each question and system that has one, grouped by question."""
    found = {(question, system): None for system, metrics in systems.items() for question in _names(metrics)}
    questions = list(dict.fromkeys(question for question, _ in found))
    for question, system in sorted(found, key=lambda table: questions.index(table[0])):
        yield _table(system, question, systems[system])


def _names(metrics: Metrics) -> dict[str, tuple[str, ...]]:
    """Return the modalities of each question that has directions, in the order of the metrics."""
    names: dict[str, dict[str, None]] = {}
    for metric in metrics:
        if match := re.fullmatch(_FROM_ONE, metric):
            names.setdefault(match[1] or "", {})[match[2]] = None
    return {question: tuple(found) for question, found in names.items()}


def _table(system: str, question: str, metrics: Metrics) -> Directions:
    names, inside = _names(metrics)[question], f"{question}/" if question else ""

    def cell(given: str, target: str) -> Mapping[str, Any] | None:
        if given == target:
            return metrics.get(f"classifier/{inside}reconstruction/{given}")
        return metrics.get(f"coherence/{inside}from/{given}/to/{target}")

    cells = [[cell(given, target) for target in names] for given in names]
    return Directions(
        system, question, names, cells, [metrics.get(f"classifier/{inside}accuracy/{name}") for name in names]
    )
