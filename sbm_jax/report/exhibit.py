"""The data structure of a paper's table or figure, with our numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sbm_jax.report import figures as charts
from sbm_jax.report import images
from sbm_jax.report.paper import Published


class Cell(NamedTuple):
    """One measured number and its published counterpart."""

    ours: Mapping[str, Any] | None
    paper: Published | None = None


class Exhibit(NamedTuple):
    """A table or a figure.

    Attributes:
      label: its name in the paper, such as ``"Table 5"``.
      title: what it shows.
      columns: headings of the cells.
      rows: (heading, cells) of each line.
      chart: a figure, or None.
      note: how the meaning of ours differs from the paper's.
      metric: its main metric, under which the reason is looked up if it was not measured.
      study: the study whose variations it needs, or "".
      missing: what is missing, and why; "" for nothing.
      panels: images, or tables of texts, side by side.
    """

    label: str
    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    chart: charts.Chart | None = None
    note: str = ""
    metric: str = ""
    study: str = ""
    missing: str = ""
    panels: tuple[images.Panel, ...] | tuple[images.TextPanel, ...] = ()
