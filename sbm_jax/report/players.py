"""Players of the sounds and videos in sample grids; sounds are synthesised from spectrograms."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.io import wavfile

from sbm_jax.config import build
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.formats.video import Video
from sbm_jax.report.images import to_rgba
from sbm_jax.types import Modality

PER_GRID = 4
"""The number of lines of a grid with players: a second of sound at 8 kHz takes 21 kB of the page."""

FRAMES_IN_A_ROW = 8
"""Frames per row of a film's sheet: a JPEG image has at most 65,535 pixels a side."""


class Film(NamedTuple):
    """A video.

    Attributes:
      source: ``data:`` URL of a JPEG image of all frames, `FRAMES_IN_A_ROW` to a row.
      count: number of frames.
      height: height of a frame in pixels.
      width: width of a frame in pixels.
      rate: frames per second.
    """

    source: str
    count: int
    height: int
    width: int
    rate: float


class Player(NamedTuple):
    """A sound, a video, or a video with the sound of the same line.

    Attributes:
      label: names the cells of the grid that it plays, and says which of them were given or are true data.
      sound: ``data:`` URL of a WAV file; "" for none.
      film: the video's frames; None for none.
    """

    label: str
    sound: str
    film: Film | None


Playable = Spectrogram | Video


def playable(config: Mapping[str, Any]) -> dict[str, Playable]:
    """Return the formats of a run's videos and spectrograms, by modality name."""
    modalities = [values for values in config.get("modalities") or () if values["format"]["name"] in _KINDS]
    return {values["name"]: make_format(build(Modality, values, "config.modalities")) for values in modalities}


_KINDS = ("spectrogram", "log_mel", "video")


def players(
    formats: Mapping[str, Playable], data: Mapping[str, np.ndarray], observed: np.ndarray, lines: Sequence[str] = ()
) -> list[Player]:
    """Return players for the first `PER_GRID` lines of a grid.

    If there is exactly one sound modality, videos are played with it.

    Args:
      formats: formats of the playable modalities, by name.
      data: {modality: [E, L, *shape]}, in the order of the columns.
      observed: bool [E, L, M].
      lines: headings of the lines, or none.
    """
    names = [name for name in data if name in formats]
    films = [name for name in names if isinstance(formats[name], Video)]
    heard = [name for name in names if name not in films]
    together = [(film, *heard) for film in films] if len(heard) == 1 else [(film,) for film in films]
    groups = together if films and len(heard) == 1 else [*together, *((name,) for name in heard)]
    shown = list(np.ndindex(observed.shape[:2]))[:PER_GRID]
    waves = {name: formats[name].to_raw(np.stack([data[name][index] for index in shown])) for name in heard}
    found = []
    for group in groups:
        for number, (example, line) in enumerate(shown):
            given = [name for name in group if observed[example, line, list(data).index(name)]]
            told = f" ({'given' if len(given) == len(group) else ', '.join(given) + ' given'})" if given else ""
            heading = lines[line] if lines else f"line {line + 1}"
            label = f"{' and '.join(group)}, example {example + 1}, {heading}{told}"
            sound = next((wav_address(waves[n][number], formats[n].options.rate) for n in group if n in waves), "")
            film = next((_film(data[n][example, line], formats[n].options.rate) for n in group if n in films), None)
            found.append(Player(label, sound, film))
    return found


def as_pictures(formats: Mapping[str, Playable], data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return data [..., *shape] with sounds and videos turned into images [..., H, W, C]."""
    found = dict(data)
    for name in data:
        if name in formats:
            found[name] = upright(data[name]) if isinstance(formats[name], Spectrogram) else some_frames(data[name])
    return found


def upright(pictures: np.ndarray) -> np.ndarray:
    """Turn spectrograms [..., frames, bands, 1] upright: time to the right, high frequencies on top."""
    return np.flip(np.swapaxes(pictures, -3, -2), axis=-3)


def some_frames(videos: np.ndarray) -> np.ndarray:
    """Tile four evenly spaced frames of videos [..., T, H, W, C] into images [..., 2 H, 2 W, C]."""
    places = (np.arange(4) + 0.5) * videos.shape[-4] / 4
    frames = np.moveaxis(videos[..., places.astype(int), :, :, :], -4, 0)
    lines = [np.concatenate([frames[i], frames[i + 1]], axis=-2) for i in (0, 2)]
    return np.concatenate(lines, axis=-3)


def wav_address(wave: np.ndarray, rate: int) -> str:
    """Encode a waveform [T] in [-1, 1] as a ``data:`` URL; non-finite samples are silent."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.round(np.nan_to_num(wave) * (2**15 - 1)).astype(np.int16))
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _film(video: np.ndarray, rate: float) -> Film:
    """Encode a video [T, H, W, C]; non-finite pixels are magenta."""
    count, height, width, channels = video.shape
    across = min(count, FRAMES_IN_A_ROW)
    down = math.ceil(count / across)
    filled = np.zeros((down * across, height, width, channels), video.dtype)
    filled[:count] = video
    sheet = filled.reshape(down, across, height, width, channels).swapaxes(1, 2)
    pixels = to_rgba(sheet.reshape(down * height, across * width, channels))[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Film(source, count, height, width, rate)
