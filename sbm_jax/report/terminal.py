"""The main numbers of a run as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbm_jax.report import summary


def results_table(results: Mapping[str, Any]) -> Table:
    """Return the main metrics of every system, as value ± standard deviation (number of samples).

    Args:
      results: the content of ``results.json``.
    """
    systems = results["systems"]
    table = Table(title="Results: value ± standard deviation (samples)", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for name in systems:
        table.add_column(escape(name), justify="right")
    table.add_column("chance", justify="right", style="dim")
    for metric in summary.MAIN_METRICS:
        found = [system["metrics"].get(metric) for system in systems.values()]
        if not any(found):
            continue
        chances = [summary.chance(metric, system["metrics"]) for system in systems.values()]
        chance = next((value for value in chances if value is not None), None)
        cells = [summary.estimate_text(estimate) if estimate else "-" for estimate in found]
        table.add_row(metric, *cells, "" if chance is None else summary.number(chance))
    return table


def print_table(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table of the main metrics, and how many could not be measured.

    Args:
      results: the content of ``results.json``.
      console: where to print; standard output when None.
    """
    console = console or Console()
    console.print(results_table(results))
    for name, system in results["systems"].items():
        for metric, reason in system.get("not_available", {}).items():
            console.print(escape(f"{name}: {metric} was not measured: {reason}."), style="dim", highlight=False)
