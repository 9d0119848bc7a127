"""Charts of the report as SVG, in a light and a dark theme, drawn with matplotlib's object interface."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from sbm_jax.report import summary


class Theme(NamedTuple):
    """Colours of a chart: text, secondary text and reference marks, grid lines, and one per series."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#1d2330",
    "#667085",
    "#e4e7ec",
    ("#2f6fde", "#d9662b", "#1f9d6b", "#8456ce", "#c93d82", "#1797a6", "#8c6b3f"),
)
DARK = Theme(
    "#e6e9ef",
    "#98a2b3",
    "#333b49",
    ("#6ea0ff", "#f08c55", "#45c490", "#aa86ee", "#ea74ab", "#4cc3d1", "#bf9c6c"),
)
MARKERS = "osD^vPX"
REFERENCES = ("chance", "real data")

Records = Sequence[Mapping[str, Any]]


class Chart(NamedTuple):
    """A chart as ``data:`` URLs, for a light and a dark page."""

    light: str
    dark: str


def draw(paint: Callable[[Figure, Theme], None], width: float, height: float) -> Chart:
    """Draw a chart in both themes.

    Args:
      paint: draws on the figure in the colours of the theme.
      width: width in inches.
      height: height in inches.
    """
    return Chart(*(_svg_address(paint, theme, width, height) for theme in (LIGHT, DARK)))


def _svg_address(paint: Callable[[Figure, Theme], None], theme: Theme, width: float, height: float) -> str:
    figure = Figure(figsize=(width, height), layout="constrained")
    paint(figure, theme)
    buffer = io.BytesIO()
    # With a fixed salt and no date, equal results give equal pages.
    with matplotlib.rc_context({"svg.hashsalt": "sbm_jax"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def style(axes: Axes, theme: Theme, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Set the labels of axes and give them the report's plain style."""
    axes.set_facecolor("none")
    axes.figure.patch.set_alpha(0.0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, length=0, labelsize=9.5)
    axes.set_xlabel(plain_text(xlabel), color=theme.ink, fontsize=10)
    axes.set_ylabel(plain_text(ylabel), color=theme.ink, fontsize=10)
    axes.set_title(plain_text(title), color=theme.ink, fontsize=10, loc="left")


def plain_text(text: str) -> str:
    """Escape a text so that matplotlib does not parse it as a formula."""
    return text.replace("$", r"\$")


def legend(axes: Axes, theme: Theme, extra: Sequence[Artist] = ()) -> None:
    """Draw a legend above the axes: the series, then `extra` artists, then reference lines."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *extra], [*labels, *(artist.get_label() for artist in extra)]
    order = sorted(range(len(handles)), key=lambda i: labels[i] in REFERENCES)
    if order:
        axes.figure.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="outside upper left",
            ncols=2 if max(map(len, labels)) > 14 else 3,
            frameon=False,
            labelcolor=theme.ink,
            fontsize=9.5,
        )


def _series(metrics: summary.Metrics, pattern: str, sizes: Sequence[int]) -> tuple[list, list, list]:
    """Return (sizes, values, spreads) of the metrics ``pattern.format(size)`` that were measured."""
    found = [(size, metrics[pattern.format(size)]) for size in sizes if pattern.format(size) in metrics]
    found = [(size, estimate) for size, estimate in found if estimate["value"] is not None]
    x = [size for size, _ in found]
    return x, [estimate["value"] for _, estimate in found], [estimate["std"] or 0.0 for _, estimate in found]


def _curves(
    systems: Mapping[str, summary.Metrics],
    drawn: Sequence[tuple[str, str, str]],
    sizes: Sequence[int],
    xlabel: str,
    ylabel: str,
) -> Chart | None:
    """Plot metrics against the size in their names.

    Args:
      systems: the metrics of each system.
      drawn: (pattern of the name, line style, description) of each metric.
      sizes: the values on the horizontal axis.
      xlabel: label of the horizontal axis.
      ylabel: label of the vertical axis.
    """
    measured = [_series(m, pattern, sizes)[0] for m in systems.values() for pattern, _, _ in drawn]
    if max(map(len, measured), default=0) < 2:  # one point makes no curve
        return None

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        style(axes, theme, xlabel, ylabel)
        for index, (name, metrics) in enumerate(systems.items()):
            own = _look(theme, index)
            for pattern, line, meaning in drawn:
                x, y, spread = _series(metrics, pattern, sizes)
                title = meaning if len(systems) == 1 else name if line == "-" else ""
                axes.errorbar(x, y, spread, label=plain_text(title) or None, linestyle=line, **own)
            x, _, _ = _series(metrics, drawn[0][0], sizes)
            chances = [summary.chance(drawn[0][0].format(size), metrics) for size in x]
            if index == 0 and None not in chances:
                axes.plot(x, chances, color=theme.muted, linestyle=":", linewidth=1.4, label="chance")
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        styles = [Line2D([], [], color=theme.ink, linestyle=line, label=meaning) for _, line, meaning in drawn]
        legend(axes, theme, styles if len(systems) > 1 else ())

    return draw(paint, 5.2, 3.5)


def _look(theme: Theme, index: int) -> dict[str, Any]:
    """Return the style of a series: when colours repeat, markers change, and are open every other round."""
    round_ = index // len(theme.series)
    color, marker = theme.series[index % len(theme.series)], MARKERS[(index + round_) % len(MARKERS)]
    filled = round_ % 2 == 0
    return {"color": color, "marker": marker, "ms": 5, "capsize": 3, "mfc": color if filled else "none"}


def lines(series: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str, ylabel: str) -> Chart | None:
    """Plot series of (x, y, spread); None if there are none."""
    if not series:
        return None

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        style(axes, theme, xlabel, ylabel)
        for index, (name, points) in enumerate(series.items()):
            x, y, spread = zip(*points, strict=True)
            axes.errorbar(x, y, spread, label=plain_text(name), **_look(theme, index))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes, theme)

    return draw(paint, 5.2, 3.5)


def conditional_curve(systems: Mapping[str, summary.Metrics]) -> Chart | None:
    """Plot coherence against the number of given modalities; None with fewer than two such numbers."""
    drawn = (
        ("coherence/given_{}", "-", "random sets"),
        ("coherence/fixed_order/given_{}", "--", "fixed order"),
    )
    return _curves(systems, drawn, range(1, _largest(systems)), "modalities given", "coherence")


def agreement_curve(systems: Mapping[str, summary.Metrics]) -> Chart | None:
    """Plot the share of joint samples in which at least k modalities agree; None with fewer than two values of k."""
    drawn = (
        ("coherence/unconditional_{}", "-", "with the first modality"),
        ("coherence/unconditional_majority_{}", "--", "majority"),
    )
    sizes = range(2, _largest(systems) + 1)
    return _curves(systems, drawn, sizes, "at least k modalities agree", "share of samples")


def _largest(systems: Mapping[str, summary.Metrics]) -> int:
    """Return an upper bound on the sizes in metric names; M is at most one more than the largest."""
    numbers = [name.rpartition("_")[2] for metrics in systems.values() for name in metrics]
    return max((int(n) for n in numbers if n.isdigit()), default=0) + 1


def class_bars(
    metrics: summary.Metrics, per_modality: np.ndarray | None, real: summary.Metrics | None = None
) -> Chart | None:
    """Plot the share of each class; None if it was not measured.

    Args:
      metrics: the metrics of one system.
      per_modality: shares [M, K] shown as dots, or None.
      real: metrics of real data; its shares ``coverage/real/class_<k>`` are marked if present.
    """
    classes = summary.num_classes(metrics)
    if classes is None:
        return None
    shown, shares, spread = _series(metrics, "coverage/class_{}", range(classes))
    real_classes, real_shares, _ = _series(real or {}, "coverage/real/class_{}", range(classes))

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        style(axes, theme, "class", "share of samples")
        color = theme.series[0]
        axes.bar(shown, shares, 0.72, color=color, alpha=0.75, label="all modalities")
        axes.errorbar(shown, shares, spread, fmt="none", color=theme.ink, capsize=3, linewidth=1)
        for m, row in enumerate(() if per_modality is None else per_modality):
            name = "each modality" if m == 0 else None
            axes.plot(range(len(row)), row, "o", color=theme.series[1], ms=3.5, alpha=0.8, label=name)
        if real_classes:
            edges = [[k + side for k in real_classes] for side in (-0.45, 0.45)]
            axes.hlines(real_shares, *edges, color=theme.muted, linestyle=":", linewidth=1.4, label="real data")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(classes, 12)))
        legend(axes, theme)

    return draw(paint, 5.2, 3.5)


def training_curves(curves: Mapping[str, Records]) -> Chart | None:
    """Plot the loss of every stage against its steps; None without any loss.

    Args:
      curves: {stage: records} with ``step``, ``loss`` and, if not from training, ``split``.
    """
    losses = {stage: _losses(records) for stage, records in curves.items()}
    losses = {stage: splits for stage, splits in losses.items() if splits}
    if not losses:
        return None
    num_columns = min(3, len(losses))
    num_lines = math.ceil(len(losses) / num_columns)

    def paint(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(num_lines, num_columns, squeeze=False)
        for axes in grid.flat[len(losses) :]:
            axes.set_visible(False)
        for axes, (stage, splits) in zip(grid.flat, losses.items(), strict=False):
            style(axes, theme, "step", "loss", stage)
            for index, (split, (steps, values)) in enumerate(splits.items()):
                marker = "o" if len(steps) < 30 else None
                color = theme.series[index % len(theme.series)]
                axes.plot(steps, values, color=color, marker=marker, ms=3, linewidth=1.4, label=plain_text(split))
            if _spans_decades(splits):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.tick_params(which="minor", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.legend(frameon=False, labelcolor=theme.ink, fontsize=8.5, loc="upper right")

    return draw(paint, 3.7 * num_columns, 2.8 * num_lines)


def _losses(records: Records) -> dict[str, tuple[list, list]]:
    """Return {split: (steps, losses)}, skipping records without a finite loss."""
    splits: dict[str, tuple[list, list]] = {}
    for record in records:
        loss = record.get("loss")
        if isinstance(loss, (int, float)) and math.isfinite(loss) and "step" in record:
            steps, values = splits.setdefault(str(record.get("split") or "train"), ([], []))
            steps.append(record["step"])
            values.append(loss)
    return splits


def _spans_decades(splits: Mapping[str, tuple[list, list]]) -> bool:
    values = [loss for _, losses in splits.values() for loss in losses]
    return min(values) > 0 and max(values) > 20 * min(values)
