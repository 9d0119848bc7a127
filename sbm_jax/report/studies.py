"""The studies of a run: what systems do where one thing of the config is changed."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sbm_jax.report import summary


class Study(NamedTuple):
    """The variations of one study: (value, metrics by system) of each."""

    name: str
    points: list[tuple[str, dict[str, summary.Metrics]]]


def studies(results: Mapping[str, Any]) -> list[Study]:
    """Return the variations that are done, by study."""
    found: dict[str, Study] = {}
    for variation in results.get("variations", ()):
        metrics = {name: system["metrics"] for name, system in variation["systems"].items()}
        study = found.setdefault(variation["study"], Study(variation["study"], []))
        study.points.append((variation["value"], metrics))
    return list(found.values())


def tables_of_studies(
    results: Mapping[str, Any], metrics: Iterable[str] = summary.STUDY_METRICS
) -> list[tuple[str, list[str], list[tuple[str, list[Mapping[str, Any] | None]]]]]:
    """Return (study, columns, lines) of every study: the main metrics of each system, without and with each change."""
    tables = []
    main = ("this run", {name: system["metrics"] for name, system in results["systems"].items()})
    for study in studies(results):
        points = [main, *study.points]
        columns = [name for name in metrics if any(name in m for _, systems in points for m in systems.values())]
        lines = [
            (f"{value}: {system}", [found.get(name) for name in columns])
            for value, systems in points
            for system, found in systems.items()
        ]
        tables.append((study.name, columns, lines))
    return tables


def changes_of_studies(results: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return (value, what it changes) of the variations of every study."""
    found: dict[str, list[tuple[str, str]]] = {}
    for variation in results.get("variations", ()):
        text = ", ".join(f"{path} = {json.dumps(value)}" for path, value in variation["changes"].items())
        found.setdefault(variation["study"], []).append((variation["value"], text))
    return found
