"""The studies of a run: how systems change with one setting of the config."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sbm_jax.report import figures as charts
from sbm_jax.report import summary

CURVES = (
    "coherence/given_rest",
    "coherence/unconditional_all",
    "sharpness/given_rest",
    "diversity/given_1",
    "inception/fid/given_rest",
    "classifier_features/frechet/given_rest",
)
"""The metrics that are plotted against the values of a study."""


class Study(NamedTuple):
    """The variations of one study: (value, metrics by system) of each."""

    name: str
    points: list[tuple[str, dict[str, summary.Metrics]]]


def studies(results: Mapping[str, Any]) -> list[Study]:
    """Return the finished variations, grouped by study."""
    found: dict[str, Study] = {}
    for variation in results.get("variations", ()):
        metrics = {name: system["metrics"] for name, system in variation["systems"].items()}
        study = found.setdefault(variation["study"], Study(variation["study"], []))
        study.points.append((variation["value"], metrics))
    return list(found.values())


def tables_of_studies(
    results: Mapping[str, Any], metrics: Iterable[str] = summary.STUDY_METRICS
) -> list[tuple[str, list[str], list[tuple[str, list[Mapping[str, Any] | None]]]]]:
    """Return (study, columns, lines) of every study: each system's main metrics, without and with each change."""
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
    """Return {study: [(value, its changes as text)]} of all variations."""
    found: dict[str, list[tuple[str, str]]] = {}
    for variation in results.get("variations", ()):
        text = ", ".join(f"{path} = {json.dumps(value)}" for path, value in variation["changes"].items())
        found.setdefault(variation["study"], []).append((variation["value"], text))
    return found


def chart_over(
    points: Sequence[tuple[float, Mapping[str, summary.Metrics]]],
    metric: str,
    xlabel: str,
    ylabel: str,
    convert: Callable[[float], float] | None = None,
) -> charts.Chart | None:
    """Plot one metric of each system against the points of a study; None without any point."""
    series: dict[str, list[tuple[float, float, float]]] = {}
    for x, systems in points:
        for name, metrics in systems.items():
            if metric in metrics and metrics[metric]["value"] is not None:
                value, std = metrics[metric]["value"], metrics[metric]["std"] or 0.0
                series.setdefault(name, []).append((x, convert(value) if convert else value, 0.0 if convert else std))
    return charts.lines(series, xlabel, ylabel)


def curves_of_studies(results: Mapping[str, Any]) -> dict[str, list[tuple[str, charts.Chart]]]:
    """Return {study: [(metric, chart)]}, plotted against the one number of the config that the study changes.

    Studies that change anything else get no charts. The main experiment is one of the points, at its config's value.
    """
    found: dict[str, list[tuple[str, charts.Chart]]] = {}
    for study in studies(results):
        changed = [v["changes"] for v in results["variations"] if v["study"] == study.name]
        path = _changed_number(changed)
        main = path and _value_at(results.get("config") or {}, path)
        found[study.name] = []
        if not _is_number(main):
            continue
        varied = {name for _, systems in study.points for name in systems}
        here = {name: system["metrics"] for name, system in results["systems"].items() if name in varied}
        values = [changes[path] for changes in changed]
        points = [(main, here), *zip(values, (systems for _, systems in study.points), strict=True)]
        points.sort(key=lambda point: point[0])
        drawn = [(metric, chart_over(points, metric, path, metric)) for metric in CURVES]
        found[study.name] = [(metric, chart) for metric, chart in drawn if chart is not None]
    return found


def _changed_number(changed: Sequence[Mapping[str, Any]]) -> str:
    """Return the only path at which all variations set distinct numbers; "" for none or several."""
    paths = [path for path in changed[0] if all(_is_number(changes.get(path)) for changes in changed)]
    paths = [path for path in paths if len({changes[path] for changes in changed}) == len(changed) > 1]
    return paths[0] if len(paths) == 1 else ""


def _value_at(config: Mapping[str, Any], path: str) -> Any:
    """Return the value of a nested config at a dotted path, or None."""
    for part in path.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
