"""The main numbers of a run as a table on the terminal."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sbm_jax.report import summary, warnings
from sbm_jax.report.directions import Directions, directions
from sbm_jax.types import NOT_ASKED

METRIC_WIDTH, SYSTEM_WIDTH = 50, 26
"""Widths in characters: of the columns of names and of chance together, and of a system's column."""


def results_table(systems: Mapping[str, Any], encoding: str = "utf-8") -> Table:
    """Return the main metrics of systems, as value ± spread (number of samples).

    Args:
      systems: ``"systems"`` of ``results.json``.
      encoding: of the output; see `shown`.
    """
    table = Table(title=shown("Results: value ± spread (samples)", encoding), title_justify="left")
    table.add_column("metric", overflow="fold")  # where there is no room for both, names wrap and numbers do not
    for name in systems:
        table.add_column(Text(shown(name, encoding), overflow="fold", no_wrap=False), justify="right", no_wrap=True)
    table.add_column("chance", justify="right", style="dim")
    for metric in summary.main_metrics(systems):
        found = [system["metrics"].get(metric) for system in systems.values()]
        if not any(found):
            continue
        chances = [summary.chance(metric, system["metrics"]) for system in systems.values()]
        chance = next((value for value in chances if value is not None), None)
        cells = [shown(summary.estimate_text(estimate), encoding) if estimate else "-" for estimate in found]
        table.add_row(metric, *cells, "" if chance is None else summary.number(chance))
    return table


def directions_table(
    tables: Sequence[Directions], encoding: str = "utf-8", targets: Sequence[int] | None = None
) -> Table:
    """Return the coherence of each modality given each other one alone, with a line per system and given modality.

    Args:
      tables: directions of the systems, all for one question and the same modalities.
      encoding: encoding of the output; see `shown`.
      targets: indices of the modalities to show as columns; None for all.
    """
    first = tables[0]
    targets = range(len(first.names)) if targets is None else targets
    title = f"Coherence given one modality{f', question {first.question}' if first.question else ''}"
    table = Table(title=shown(title, encoding), title_justify="left", caption_justify="left")
    table.caption = "In brackets: the classifier's accuracy on reconstructions."
    for name in ("system", "given"):
        table.add_column(name, overflow="fold")
    for target in targets:
        table.add_column(escape(shown(first.names[target], encoding)), justify="right", overflow="fold")
    for one in tables:
        for number, name in enumerate(one.names):
            cells = [_short(one.cells[number][target], target == number) for target in targets]
            names = [one.system if number == 0 else "", name]
            table.add_row(*(escape(shown(text, encoding)) for text in names), *cells)
        table.add_section()
    if first.has_real:
        table.add_row("real data", "", *(_short(first.real[target]) for target in targets))
    return table


def _that_fit(tables: Sequence[Directions], width: int) -> list[range]:
    """Split the columns into tables shown one below the other, each with as many as fit."""
    names = tables[0].names
    left = width - max(len(one.system) for one in tables) - max(map(len, names)) - 7
    at_once = max(1, left // (max(6, *map(len, names)) + 3))
    return [range(start, min(start + at_once, len(names))) for start in range(0, len(names), at_once)]


def _short(estimate: Mapping[str, Any] | None, in_brackets: bool = False) -> str:
    """Format a share with two decimals."""
    if estimate is None:
        return "-"
    text = "lost" if estimate["value"] is None else f"{estimate['value']:.2f}"
    return f"({text})" if in_brackets else text


def shown(text: str, encoding: str) -> str:
    """Replace what an encoding lacks: ± by +-, and any other character by ?."""
    try:
        "±".encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-")
    return text.encode(encoding, "replace").decode(encoding)


def print_table(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of main metrics and of directions, the warnings, and what could not be measured.

    Args:
      results: the content of ``results.json``.
      console: where to print; standard output when None.
    """
    console = console or Console()
    names = list(results["systems"])
    at_once = max(1, (console.width - METRIC_WIDTH) // SYSTEM_WIDTH)
    for start in range(0, len(names), at_once):
        some = {name: results["systems"][name] for name in names[start : start + at_once]}
        console.print(results_table(some, console.encoding))
    metrics = {name: system["metrics"] for name, system in results["systems"].items()}
    alike = itertools.groupby(directions(metrics), key=lambda table: (table.question, table.names))
    for _, group in alike:
        tables = list(group)
        for targets in _that_fit(tables, console.width):
            console.print(directions_table(tables, console.encoding, targets))
    main = summary.main_metrics(results["systems"])
    found = {name: [own[name] for own in metrics.values() if name in own] for name in main}
    for sentence in (summary.spread_notes(found), summary.lead(metrics)):
        if sentence:
            console.print(escape(shown(sentence, console.encoding)), highlight=False)
    for text, systems in warnings.by_system(results["systems"]).items():
        line = shown(f"Warning ({', '.join(systems)}): {text}", console.encoding)
        console.print(escape(line), style="yellow", highlight=False)
    for (metric, reason), systems in _missing(results["systems"]).items():
        line = shown(f"{', '.join(systems)}: {metric} was not measured: {reason}.", console.encoding)
        console.print(escape(line), style="dim", highlight=False)


def _missing(systems: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Return {(metric, reason): systems that lack it}, except for metrics that were not requested."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, system in systems.items():
        for metric, reason in system.get("not_available", {}).items():
            if not reason.startswith(NOT_ASKED):
                found.setdefault((metric, reason), []).append(name)
    return found
