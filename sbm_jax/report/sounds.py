"""Players of the sounds in sample grids, synthesised from the pictures that networks see."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.io import wavfile

from sbm_jax.config import build
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.types import Modality

PER_GRID = 4
"""Players of each modality in a grid: a second at 8 kHz takes 21 kB of the page."""


class Player(NamedTuple):
    """A sound.

    Attributes:
      label: which cell of the grid it is.
      source: a ``data:`` address of a WAV file.
      given: whether it was given, or is true data.
    """

    label: str
    source: str
    given: bool


def spectrograms(config: Mapping[str, Any]) -> dict[str, Spectrogram]:
    """Return the formats of the modalities of a run that are spectrograms, by name."""
    modalities = [values for values in config.get("modalities") or () if values["format"]["name"] == "spectrogram"]
    return {values["name"]: make_format(build(Modality, values, "config.modalities")) for values in modalities}


def players(
    formats: Mapping[str, Spectrogram], data: Mapping[str, np.ndarray], observed: np.ndarray, lines: Sequence[str] = ()
) -> list[Player]:
    """Return players of the first cells of a grid, for each modality that is a spectrogram.

    Args:
      formats: of these modalities.
      data: {modality: [E, L, *shape]}, in the order of the columns.
      observed: bool [E, L, M].
      lines: headings of the lines, or none.
    """
    found = []
    for column, (name, cells) in enumerate(data.items()):
        if name not in formats:
            continue
        shown = list(np.ndindex(cells.shape[:2]))[:PER_GRID]
        waves = formats[name].to_raw(np.stack([cells[index] for index in shown]))
        for (example, line), wave in zip(shown, waves, strict=True):
            heading = lines[line] if lines else f"line {line + 1}"
            source = wav_address(wave, formats[name].options.rate)
            given = bool(observed[example, line, column])
            found.append(Player(f"{name}, example {example + 1}, {heading}", source, given))
    return found


def upright(pictures: np.ndarray) -> np.ndarray:
    """Return pictures [..., frames, bands, 1] as they are read: time to the right, high tones on top."""
    return np.flip(np.swapaxes(pictures, -3, -2), axis=-3)


def wav_address(wave: np.ndarray, rate: int) -> str:
    """Return a waveform [T] in [-1, 1] as a ``data:`` address; what is not finite is silent."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.round(np.nan_to_num(wave) * (2**15 - 1)).astype(np.int16))
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
