"""What a table or a figure of a paper is, with our numbers in it."""

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
      label: what it is in the paper, such as ``"Table 5"``.
      title: what it shows.
      columns: headings of the cells.
      rows: (heading, cells) of each line.
      chart: a figure, or None.
      note: how ours differs from the paper's in what it means.
      metric: what it shows mainly; where that was not measured, the reason is looked up by its name.
      study: whose variations it needs, or "".
      missing: what is lacking of it, and why; "" for nothing.
      panels: pictures, or tables of texts, side by side.
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
