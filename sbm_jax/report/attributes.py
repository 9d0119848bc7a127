"""Tables of attributes: how well each is generated, beside its base rate."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sbm_jax.report.summary import Metrics, entry

MEAN = "mean"

_SCORES = ("f1", "balanced_accuracy")
_NAME = r"per_attribute/(f1|balanced_accuracy|base_rate)/given_([^/]+)/([^/]+)/(.+)"


class Line(NamedTuple):
    """One attribute, or the mean of all.

    Attributes:
      name: name of the attribute.
      base_rate: an estimate, or None.
      cells: F1 and balanced accuracy of each system, interleaved, [2 S]; None where there is no number.
    """

    name: str
    base_rate: Mapping[str, Any] | None
    cells: list[Mapping[str, Any] | None]


class AttributeTable(NamedTuple):
    """The attributes of one modality, generated from the same others.

    Attributes:
      title: which modality is generated from which.
      systems: names of the S systems that were measured.
      lines: one line per attribute, and one for their means.
    """

    title: str
    systems: tuple[str, ...]
    lines: list[Line]


def attribute_tables(systems: Mapping[str, Metrics]) -> Iterator[AttributeTable]:
    """Yield a table for each modality of attributes and each set of modalities it was generated from."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}  # {(entry, given, modality): attributes in order}
    for metrics in systems.values():
        for metric in metrics:
            own_entry, name = entry(metric)
            if match := re.fullmatch(_NAME, name):
                found.setdefault((own_entry, match[2], match[3]), {})[match[4]] = None
    for (own_entry, given, modality), names in found.items():
        before, after = f"{own_entry}/" if own_entry else "", f"given_{given}/{modality}"
        paths = {measure: f"{before}per_attribute/{measure}/{after}" for measure in ("base_rate", *_SCORES)}
        measured = {name: own for name, own in systems.items() if paths["f1"] in own}
        lines = [_line(name, f"/{name}", paths, measured) for name in names]
        title = f"{modality} given {'the rest' if given == 'rest' else given}{f' ({own_entry})' if own_entry else ''}"
        yield AttributeTable(title, tuple(measured), [*lines, _line(MEAN, "", paths, measured)])


def is_of_one_attribute(metric: str) -> bool:
    """Return whether a metric belongs to a single attribute."""
    return re.fullmatch(_NAME, entry(metric)[1]) is not None


def _line(name: str, ending: str, paths: Mapping[str, str], systems: Mapping[str, Metrics]) -> Line:
    rates = (metrics.get(paths["base_rate"] + ending) for metrics in systems.values())  # equal, from the same rows
    cells = [metrics.get(paths[score] + ending) for metrics in systems.values() for score in _SCORES]
    return Line(name, next(filter(None, rates), None), cells)
