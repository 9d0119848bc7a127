"""The papers' tables whose columns are metrics: faces, birds, and video with sound."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sbm_jax.report import figures as charts
from sbm_jax.report import summary
from sbm_jax.report.exhibit import Cell, Exhibit
from sbm_jax.report.paper import Paper
from sbm_jax.report.studies import Study

_ATTRIBUTES = {
    "attributes | both: F1": "f1/given_rest/attributes",
    "attributes | image: F1": "f1/given_image/attributes",
}
_IMAGE = {
    "image | both: FID": "inception/fid/given_rest/image",
    "image | mask: FID": "inception/fid/from/mask/image",
    "image | attributes: FID": "inception/fid/from/attributes/image",
}
_NOTHING = {"image, from nothing: FID": "inception/fid/unconditional/image"}
_MASK = {"mask | both: F1": "f1/given_rest/mask", "mask | image: F1": "f1/given_image/mask"}
_ATTACKED = {
    "F1, attacked with 0.05": "robustness/given_image/attributes/f1/attack_0.05",
    "share that is lost": "robustness/given_image/attributes/drop/attack_0.05",
}
_CLIP = {
    "caption | image: CLIP score": "clip_score/given_image/caption",
    "image | caption: CLIP score": "clip_score/given_caption/image",
    "from nothing: CLIP score": "clip_score/unconditional/image/caption",
}
_GIVEN_REST = {
    "mask: F1": "f1/given_rest/mask",
    "attributes: F1": "f1/given_rest/attributes",
    "image: FID": "inception/fid/given_rest/image",
}

TABLES = {
    "sbm_celebamask_hq": {
        "Table 1": ("Each modality given others", _ATTRIBUTES | _IMAGE | _MASK),
        "Table 2": ("Images from nothing", _NOTHING),
        "Table 3": ("Attributes of attacked images", _ATTACKED),
    },
    "diff_mvae_celebamask_hq": {
        "Table 3": ("Each modality given others", _ATTRIBUTES | _IMAGE | _NOTHING | _MASK),
    },
    "sbm_video_audio": {
        "Table 9": (
            "Frames of videos, and sounds",
            {
                "from nothing: FID": "inception/fid/unconditional/video",
                "from nothing: FAD": "vggish/fad/unconditional/sound",
                "video | sound: FID": "inception/fid/given_rest/video",
                "sound | video: FAD": "vggish/fad/given_rest/sound",
            },
        ),
    },
    "diff_mvae_cub": {
        "Table 1": ("Images of birds", {"image | caption: FID": "inception/fid/given_rest/image"} | _NOTHING),
        "Table 2": ("How well birds and captions match", _CLIP),
    },
}
"""The tables of each paper: {label: (title, {column heading: metric})}, with columns in the paper's order."""

_WITH_PRIOR = ("diff_mvae", "diff_mvae_star")
_PRIOR = (
    "From nothing, the paper's Diff-MVAE samples with a score model as prior (4.3). Ours does so here if the run has "
    "a row whose name ends with _score."
)

MISSING = "0.2"
"""The value of the study ``"missing"`` that Table 11 shows."""


def tables(name: str, paper: Paper, systems: Mapping[str, summary.Metrics]) -> Iterator[Exhibit]:
    """Yield the tables of a paper with our numbers.

    Args:
      name: a key of `TABLES`.
      paper: the paper's numbers.
      systems: our metrics, by system.
    """
    for label, (title, columns) in TABLES[name].items():
        table = _table(label, title, columns, paper, systems)
        priors = any(one in _WITH_PRIOR for one in paper.tables[label])
        yield table._replace(note=_PRIOR) if priors else table


def with_missing(paper: Paper, study: Study | None) -> Exhibit:
    """Return Table 11: systems trained with a fifth of each modality missing."""
    points = dict(study.points) if study else {}
    title = "Trained with a fifth of each modality missing; each given the rest"
    return _table("Table 11", title, _GIVEN_REST, paper, points.get(MISSING, {}))._replace(study="missing")


def attacks(systems: Mapping[str, summary.Metrics]) -> Exhibit:
    """Plot the F1 score of attributes of attacked images against the strength of the attack."""
    series: dict[str, list[tuple[float, float, float]]] = {}
    start = "robustness/given_image/attributes/f1"
    for name, metrics in systems.items():
        for metric, found in metrics.items():
            own = summary.entry(metric)[1]
            if own.startswith(start) and found["value"] is not None:
                strength = float(own.removeprefix(start).removeprefix("/attack_") or 0.0)
                series.setdefault(name, []).append((strength, found["value"], found["std"] or 0.0))
    chart = charts.lines({name: sorted(points) for name, points in series.items()}, "strength ε", "F1 of attributes")
    return Exhibit("Attacks", "F1 of attributes against the strength of the attack", chart=chart, metric="robustness")


def find(metrics: summary.Metrics, name: str) -> Mapping[str, Any] | None:
    """Return the estimate of a metric, under whatever entry of the config, or None."""
    return next((found for metric, found in metrics.items() if summary.entry(metric)[1] == name), None)


def _table(
    label: str, title: str, columns: Mapping[str, str], paper: Paper, systems: Mapping[str, summary.Metrics]
) -> Exhibit:
    published = paper.tables.get(label, {})
    rows = []
    for name in published | systems:
        metrics = systems.get(name, {})
        if name in _WITH_PRIOR:
            metrics = {**metrics, **_from_nothing(systems.get(f"{name}_score", {}))}
        rows.append((name, _cells(columns.values(), metrics, published.get(name))))
    absent = [name for name in published if name not in systems]
    return Exhibit(
        label,
        title,
        tuple(columns),
        tuple(rows),
        metric=next(iter(columns.values())),
        missing=f"not part of this run: {', '.join(absent)}" if absent else "",
    )


def _from_nothing(metrics: summary.Metrics) -> summary.Metrics:
    """Return the metrics of unconditional samples."""
    names = {*_NOTHING.values(), "clip_score/unconditional/image/caption"}
    return {name: found for name, found in metrics.items() if summary.entry(name)[1] in names}


def _cells(names: Sequence[str], metrics: summary.Metrics, published: tuple | None) -> tuple[Cell, ...]:
    names = list(names)
    return tuple(map(Cell, (find(metrics, name) for name in names), published or (None,) * len(names)))
