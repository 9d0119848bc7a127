"""Published numbers of video and sound, and the table that they stand in beside ours."""

from collections.abc import Mapping
from typing import Any

from sbm_jax.report import summary
from sbm_jax.report.exhibit import Cell, Exhibit
from sbm_jax.report.paper import Choice, Paper, Published, VideoRow, same

SBM_VIDEO_AUDIO = Paper(
    title="D. Wesego and P. Rooshenas, Score-Based Multimodal Autoencoder, A.8: video and audio",
    video={
        "sbm_vae": VideoRow("SBM-VAE", (Published(99.02), Published(3.31), Published(101.19), Published(8.23))),
        "codi_1": VideoRow("CoDi, on these data", (None, None, Published(100.4), Published(14.9))),
        "codi_2": VideoRow("CoDi, on COCO and AudioCaps", (None, None, Published(11.26), Published(1.80))),
    },
    settings={
        "data.video_files.seconds": same(2.0),
        "data.video_files.frame_rate": same(8.0),
        "data.video_files.size": same(256),
        "modalities.0.codec.name": Choice("a pretrained autoencoder of images", ("autoencoder_kl",)),
        "modalities.1.codec.name": Choice("a pretrained autoencoder of mel spectrograms", ("autoencoder_kl",)),
        "score.network.name": same("unet"),
        "evaluation.num_examples": same(2000),
    },
    further=(
        ("data", "see the config", "about 100,000 clips of SoundNet"),
        ("sizes, training and sampling of the score model", "see the config", "not given"),
        ("which modality is given", "the other one", "not given"),
        ("sounds that FAD compares", "both made from spectrograms", "not given"),
    ),
)

COLUMNS = ("FID from nothing", "FAD from nothing", "FID given sound", "FAD given video")

_FID, _FAD = "inception/fid", "vggish/fad"
_METRICS = (
    f"{_FID}/unconditional/video",
    f"{_FAD}/unconditional/sound",
    f"{_FID}/given_rest/video",
    f"{_FAD}/given_rest/sound",
)


def video_and_sound(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    """Return the paper's Table 9 with our numbers, of modalities called `video` and `sound`."""
    rows = []
    for name in {**paper.video, **systems}:
        published = paper.video.get(name)
        measured = [_found(systems.get(name, {}), metric) for metric in _METRICS]
        theirs = published.cells if published else (None,) * len(measured)
        cells = tuple(Cell(*pair) for pair in zip(measured, theirs, strict=True))
        rows.append((published.name if published else name, cells))
    return Exhibit(
        "Table 9",
        "Video generation",
        COLUMNS,
        tuple(rows),
        note="FID of all frames. The paper's numbers are of other data than ours, where these are not SoundNet.",
        metric=_METRICS[2],
    )


def _found(metrics: summary.Metrics, metric: str) -> Mapping[str, Any] | None:
    """Return a number, under whatever entry of the config it was measured."""
    return next((value for name, value in metrics.items() if summary.entry(name)[1] == metric), None)
