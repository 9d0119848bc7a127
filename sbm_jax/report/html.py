"""The report of a run: one self-contained HTML page."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jinja2
import numpy as np

from sbm_jax.report import choices, exhibits, images, studies, summary, warnings
from sbm_jax.report import figures as charts
from sbm_jax.report.attributes import attribute_tables, is_of_one_attribute
from sbm_jax.report.directions import directions
from sbm_jax.report.players import FRAMES_IN_A_ROW, Playable, Player, as_pictures, playable, players
from sbm_jax.report.results import jsonable
from sbm_jax.storage import write_atomically


class GridText(NamedTuple):
    """Layout and explanation of a sample grid."""

    title: str
    caption: str
    lines: tuple[str, ...] = ()
    transposed: bool = False


GRIDS = {
    "given_one": GridText(
        "One given, all others generated",
        "In each line the bordered modality comes from a held-out row and was given; the rest of the line was "
        "generated from it. A coherent line shows one class. Each panel starts from a different held-out row.",
    ),
    "given_rest": GridText(
        "Each generated from all the others",
        "The first line is a held-out row. In the lines below, each modality was generated separately, given "
        "the true data of all the others; the lines differ only in the noise.",
        ("true", "sample 1", "sample 2", "sample 3"),
    ),
    "unconditional": GridText(
        "Generated from nothing",
        "Each column, or line where there are texts, is one joint sample with nothing given. A coherent one shows one "
        "class.",
        transposed=True,
    ),
    "reconstruction": GridText(
        "Autoencoders",
        "Held-out data and their reconstructions by the autoencoders: the best that samples can be.",
        ("data", "decoded"),
    ),
}


class Grid(NamedTuple):
    """A sample grid, ready to be shown."""

    text: GridText
    panels: list[images.Panel] | list[images.TextPanel]
    players: list[Player]


class Row(NamedTuple):
    """A line of a table of metrics: one cell per system, and the value on real data."""

    label: str
    metric: str
    cells: list[Mapping[str, Any] | None]
    chance: float | None
    real: Mapping[str, Any] | None


class Bar(NamedTuple):
    """One system's headline number, and its reference value."""

    system: str
    estimate: Mapping[str, Any]
    reference: float | None


def write_report(
    workdir: str | os.PathLike,
    results: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, np.ndarray]],
    training_curves: Mapping[str, charts.Records],
) -> pathlib.Path:
    """Write ``<workdir>/report/index.html`` and return its path.

    Args:
      workdir: the run's directory.
      results: the content of ``results.json``, the only source of numbers.
      figures: {system: {name: array}}; ``samples/<grid>/data/<modality>`` [E, L, *shape] with
        ``samples/<grid>/observed`` bool [E, L, M], and ``class_shares`` [M, K].
      training_curves: {stage: records}, with ``step``, ``loss`` and, if not from training, ``split``.

    Raises:
      SbmError: if it cannot be written.
    """
    path = pathlib.Path(workdir, "report", "index.html")
    write_atomically(path, render(jsonable(results), figures, training_curves))
    return path


def render(
    results: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, np.ndarray]],
    training_curves: Mapping[str, charts.Records],
) -> str:
    """Render the page; see `write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sbm_jax", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": summary.number, "duration": duration, "label": summary.label}
    environment.globals |= {"SPREADS": summary.SPREADS, "FRAMES_IN_A_ROW": FRAMES_IN_A_ROW}
    systems = results["systems"]
    metrics = {name: system["metrics"] for name, system in systems.items()}
    played = playable(results.get("config") or {})
    real = results.get("data", {}).get("metrics", {})
    return environment.get_template("template.html").render(
        systems=list(systems),
        paper=choices.paper_of(results.get("published")),
        exhibits=exhibits.exhibits(results, figures),
        differences=choices.differences(results),
        studies=studies.tables_of_studies(results),
        changes=studies.changes_of_studies(results),
        study_curves=studies.curves_of_studies(results),
        judged=choices.judged_modalities(results),
        to_come=results.get("to_come") or [],
        headlines=list(headlines(metrics)),
        lead=summary.lead(metrics),
        directions=list(directions(metrics)),
        attribute_tables=list(attribute_tables(metrics)),
        warnings=warnings_of(results),
        sections=list(sections(metrics, real)),
        missing={name: grouped_reasons(reasons) for name, reasons in not_available(results).items()},
        curves={
            "conditional": charts.conditional_curve(metrics),
            "agreement": charts.agreement_curve(metrics),
            "training": charts.training_curves(training_curves),
        },
        class_shares={
            name: charts.class_bars(metrics[name], figures.get(name, {}).get("class_shares"), real) for name in systems
        },
        grids={name: list(sample_grids(figures.get(name, {}), played)) for name in systems},
        config=list(flatten(results.get("config") or {})),
        versions=results.get("versions") or {},
        device=results.get("device") or {},
        name=results.get("name") or ", ".join(systems),
        command=results.get("command"),
        seconds=results.get("seconds") or {},
    )


def headlines(systems: Mapping[str, summary.Metrics]) -> Iterator[tuple[summary.Headline, list[Bar]]]:
    """Yield the headline numbers that were measured, with one bar per system."""
    for headline in summary.HEADLINES:
        bars = [
            Bar(name, metrics[headline.metric], summary.reference(headline.metric, metrics))
            for name, metrics in systems.items()
            if headline.metric in metrics
        ]
        if bars:
            yield headline, bars


def sections(systems: Mapping[str, summary.Metrics], real: summary.Metrics) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield (title, how to read it, lines) of the tables.

    Every metric is in exactly one, except those of single attributes, which `attribute_tables` shows.
    """
    every = dict.fromkeys(name for metrics in systems.values() for name in metrics)
    names = [name for name in every if not is_of_one_attribute(name)]
    for title, prefixes, meaning in summary.SECTIONS:
        chosen = sorted((name for name in names if summary.entry(name)[1].startswith(prefixes)), key=summary.order)
        names = [name for name in names if name not in chosen]
        rows = []
        for name in chosen:
            cells = [metrics.get(name) for metrics in systems.values()]
            chances = [summary.chance(name, metrics) for metrics in systems.values()]
            chance = next((value for value in chances if value is not None), None)
            floors = [summary.real_counterpart(name, metrics, real) for metrics in systems.values() if name in metrics]
            rows.append(Row(summary.label(name), name, cells, chance, next(filter(None, floors), None)))
        if rows:
            yield title, meaning, rows


def warnings_of(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return {warning: systems that have it}, including systems of variations."""
    systems = dict(results["systems"])
    for variation in results.get("variations", ()):
        systems |= {f"{variation['study']} = {variation['value']}: {n}": s for n, s in variation["systems"].items()}
    return warnings.by_system(systems)


def not_available(results: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return {system: {metric: reason}} of missing metrics, including systems of variations."""
    found = {name: system.get("not_available", {}) for name, system in results["systems"].items()}
    for variation in results.get("variations", ()):
        for name, system in variation["systems"].items():
            found[f"{variation['study']} = {variation['value']}: {name}"] = system.get("not_available", {})
    return found


def grouped_reasons(not_available: Mapping[str, str]) -> dict[str, list[str]]:
    """Group missing metrics by reason, {reason: metrics}."""
    reasons: dict[str, list[str]] = {}
    for metric, reason in not_available.items():
        reasons.setdefault(reason, []).append(metric)
    return reasons


def sample_grids(figures: Mapping[str, np.ndarray], formats: Mapping[str, Playable] | None = None) -> Iterator[Grid]:
    """Yield the sample grids of one system, known ones first; `formats` are those of playable modalities."""
    found = {name.split("/")[1] for name in figures if name.startswith("samples/")}
    for grid in [*(name for name in GRIDS if name in found), *sorted(found - set(GRIDS))]:
        prefix = f"samples/{grid}/data/"
        data = {name.removeprefix(prefix): values for name, values in figures.items() if name.startswith(prefix)}
        observed = figures[f"samples/{grid}/observed"]
        text = GRIDS.get(grid, GridText(grid, "Bordered cells were given."))
        lines = text.lines if len(text.lines) == observed.shape[1] else ()
        shown = as_pictures(formats or {}, data)
        panels = images.panels(shown, observed, lines, text.transposed)
        yield Grid(text, panels, players(formats or {}, data, observed, lines))


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, JSON value) of every field of a nested config."""
    if isinstance(config, Mapping) and config:
        for name, value in config.items():
            yield from flatten(value, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        yield prefix, json.dumps(config, ensure_ascii=False)


def duration(seconds: float | None) -> str:
    """Format a time span, as in ``3 min 12 s``."""
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
