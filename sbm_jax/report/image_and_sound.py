"""Table 8 of the SBM paper: images from sounds, sounds from images, and both from nothing."""

from collections.abc import Mapping
from typing import Any

from sbm_jax.report import summary
from sbm_jax.report.exhibit import Cell, Exhibit
from sbm_jax.report.paper import Paper


def image_and_sound(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    """Return the paper's table with our numbers, for modalities named `image` and `sound`."""
    rows = []
    for name in {**paper.directions, **systems}:
        metrics, published = systems.get(name, {}), paper.directions.get(name)
        measured = (
            _direction(metrics, "sound", "image"),
            _direction(metrics, "image", "sound"),
            metrics.get("coherence/unconditional_2"),
        )
        theirs = published.cells if published else (None,) * len(measured)
        cells = tuple(Cell(*pair) for pair in zip(measured, theirs, strict=True))
        rows.append((published.name if published else name, cells))
    absent = [row.name for name, row in paper.directions.items() if name not in systems]
    more = any((summary.num_modalities(metrics) or 2) > 2 for metrics in systems.values())
    return Exhibit(
        "Table 8",
        "Generation coherence of image and audio",
        ("audio to image", "image to audio", "both agree, from nothing"),
        tuple(rows),
        note="Ours from nothing: two modalities or more agree with the first, of more than two." if more else "",
        metric="coherence/given_rest",
        missing=f"not part of this run: {', '.join(absent)}" if absent else "",
    )


def _direction(metrics: summary.Metrics, given: str, target: str) -> Mapping[str, Any] | None:
    """Return the coherence of one modality given another; with two modalities, that is given the rest."""
    found = metrics.get(f"coherence/from/{given}/to/{target}")
    if found is None and summary.num_modalities(metrics) == 2:
        found = metrics.get(f"coherence/given_rest/{target}")
    return found
