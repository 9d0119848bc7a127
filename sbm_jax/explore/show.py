"""Rows of every kind as self-contained HTML: images, sounds and films are embedded as `data:` URLs."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import signal

from sbm_jax.explore.settings import Settings
from sbm_jax.explore.work import Drawn
from sbm_jax.formats import Format, make_format
from sbm_jax.formats.binary import Binary
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.formats.video import Video
from sbm_jax.report.images import bars, png_address, to_rgba
from sbm_jax.report.players import wav_address
from sbm_jax.types import Modality

LEAST_WIDTH = 112
"""Screen pixels: narrower images are enlarged by an integer factor."""

LEAST_RATE = 3000
"""The sampling rate in Hz below which Chromium plays nothing."""

MOST_NUMBERS = 6
"""Longer vectors are shown only as bars."""

CSS = """
.sbm { --quiet: color-mix(in srgb, var(--body-text-color) 72%, transparent); padding: 0 .3rem; }
.sbm h3 { margin: 1.1rem 0 .4rem; font-size: 1rem; }
.sbm h3 small { font-weight: normal; color: var(--quiet); }
.sbm .cells { display: flex; flex-wrap: wrap; gap: .6rem; align-items: flex-start; }
.sbm figure { margin: 0; padding: .4rem; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--block-background-fill); max-width: 100%; }
.sbm figure.given { border: 2px solid #f59e0b; }
.sbm figure.true { border-style: dashed; }
.sbm figcaption { font-size: .78rem; color: var(--quiet); margin-top: .25rem; }
.sbm img { display: block; max-width: 100%; image-rendering: pixelated; }
.sbm audio { display: block; width: 13rem; max-width: 100%; }
.sbm a { text-decoration: underline; margin: 0; padding: 0; }
.sbm .row img { width: 4rem !important; height: auto; }
.sbm .row audio { width: 10rem; }
.sbm .row .text { max-width: 12rem; }
.sbm .text { display: block; max-width: 22rem; overflow-wrap: anywhere; }
.sbm .error { padding: .7rem .9rem; border: 2px solid #dc2626; border-radius: 8px; overflow-wrap: anywhere; }
.sbm .note { color: var(--quiet); overflow-wrap: anywhere; }
"""


def error(message: str) -> str:
    """Format an error as HTML."""
    return f'<div class="sbm"><p class="error" role="alert">{html.escape(message)}</p></div>'


def notes(messages: Sequence[str]) -> str:
    """Format sentences as HTML, one paragraph each."""
    told = "".join(f'<p class="note">{html.escape(message)}</p>' for message in messages)
    return f'<div class="sbm">{told}</div>'


def row(modalities: Sequence[Modality], values: Mapping[str, Any]) -> str:
    """Format a held-out row, {modality: row in the form of the training data}, as HTML."""
    cells = [figure(m, values[m.name], m.name) for m in modalities if m.name in values]
    return f'<div class="sbm"><div class="cells row">{"".join(cells)}</div></div>' if cells else ""


def drawn(modalities: Sequence[Modality], found: Drawn, true: Mapping[str, Any], settings: Settings) -> str:
    """Format the given data and the samples as HTML, each target beside that of the held-out row.

    Args:
      modalities: all modalities.
      found: the samples.
      true: the held-out row; {} for none.
      settings: the settings that produced the samples.
    """
    parts = [f"<p>{_cost(found)}</p><p><a href='{html.escape(settings.query)}'>Link to these settings</a></p>"]
    given = [figure(m, found.given[m.name], m.name, "given") for m in modalities if m.name in found.given]
    if given:
        parts += ["<h3>Given</h3>", f'<div class="cells">{"".join(given)}</div>']
    for modality in modalities:
        if modality.name not in found.samples:
            continue
        rows = found.samples[modality.name]
        cells = [figure(modality, sample, f"sample {number + 1}") for number, sample in enumerate(rows)]
        if modality.name in true:
            cells.insert(0, figure(modality, true[modality.name], "held out", "true"))
        parts += [f"<h3>{html.escape(modality.name)}</h3>", f'<div class="cells">{"".join(cells)}</div>']
    return f'<div class="sbm" data-done>{"".join(parts)}</div>'


def _cost(found: Drawn) -> str:
    told = [f"{found.info['network_evaluations']} evaluations of the network"]
    if found.info.get("decoder_evaluations"):
        told.append(f"{found.info['decoder_evaluations']} of each decoder")
    seconds = f"{found.seconds:.2f} s"
    told.append(f"{seconds}, mostly for compilation: the next call is faster" if found.compiled else seconds)
    if found.info.get("diverged"):
        told.append(f"{found.info['diverged']} samples diverged; lower the strength, or take more steps")
    return "; ".join(told) + "."


def figure(modality: Modality, value: Any, caption: str, kind: str = "sample") -> str:
    """Format one row of a modality as HTML, with a caption.

    Args:
      modality: the modality of the row.
      value: the row, in the form of the training data.
      caption: the text below it.
      kind: ``"given"``, ``"true"`` or ``"sample"``.
    """
    named = html.escape(f"{modality.name}, {caption}" if caption != modality.name else caption)
    shown = _shown(make_format(modality), value, named)
    return f'<figure class="{kind}">{shown}<figcaption>{html.escape(caption)}</figcaption></figure>'


def _shown(values: Format, value: Any, named: str) -> str:
    """Return the HTML element that shows a row."""
    row = np.asarray(value)
    if row.dtype.kind == "U":
        return _text(str(row))
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        return '<span class="text">diverged</span>'
    if isinstance(values, Spectrogram):
        address = wav_address(*_audible(_wave(values, row), values.options.rate))
        return f'<audio controls aria-label="{named}" src="{address}"></audio>'
    if isinstance(values, Video):
        return _film(_unit(row.reshape(values.modality.shape), values), values.options.rate, named)
    if isinstance(values, Binary):
        return _yes_and_no(values, row, named)
    if values.is_picture:
        return _picture(_unit(row.reshape(values.modality.shape), values), named)
    texts = values.to_texts(values.to_array(row[None], "the row"))
    if texts is not None and texts.dtype.kind == "U":
        return _text(str(texts[0]))
    return _numbers(row, named)


def _text(text: str) -> str:
    return f'<span class="text">{html.escape(text) or "(empty)"}</span>'


def _wave(values: Spectrogram, row: np.ndarray) -> np.ndarray:
    """Convert a waveform, int16 or in [-1, 1], or a spectrogram to a waveform in [-1, 1]."""
    if row.shape == values.modality.shape:
        return values.to_raw(row[None])[0]
    return row / 2**15 if row.dtype == np.int16 else row


def _audible(wave: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Resample a waveform to a rate that browsers play, if its own is too low; return both."""
    factor = -(-LEAST_RATE // rate)
    if factor == 1:
        return wave, rate
    return np.clip(signal.resample_poly(wave, factor, 1), -1, 1), factor * rate


def _unit(pixels: np.ndarray, values: Format) -> np.ndarray:
    """Scale pixels to [0, 1] by their bounds, or by their range if there are none."""
    if pixels.dtype == np.uint8:
        return pixels / 255
    low, high = values.modality.bounds or (pixels.min(), pixels.max())
    return (pixels - low) / max(high - low, np.finfo(np.float32).tiny)


def _yes_and_no(values: Binary, row: np.ndarray, named: str) -> str:
    array = values.to_array(row[None], "the row")
    if values.is_picture:
        return _picture(array[0], named)
    texts = values.to_texts(array)
    return _numbers(array[0].astype(int), named) if texts is None else _text(str(texts[0]))


def _picture(pixels: np.ndarray, named: str) -> str:
    height, width = pixels.shape[:2]
    return f'<img alt="{named}" {_size(height, width)} src="{png_address(to_rgba(pixels))}">'


def _size(height: int, width: int) -> str:
    scale = max(1, -(-LEAST_WIDTH // width))
    return f'style="width: {scale * width}px; aspect-ratio: {width} / {height}"'


def _film(frames: np.ndarray, rate: float, named: str) -> str:
    """Encode frames [T, H, W, C] as an animated PNG."""
    first, *others = [Image.fromarray(to_rgba(frame)[..., :3]) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others, duration=1000 / rate, loop=0)
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{named}" {_size(*frames.shape[1:3])} src="{address}">'


def _numbers(row: np.ndarray, named: str) -> str:
    """Format numbers as bars, and in digits if they are few."""
    flat = np.ravel(row)
    told = _text(", ".join(f"{number:.3g}" for number in flat)) if flat.size <= MOST_NUMBERS else ""
    if flat.size == 1:
        return told
    return f'<img alt="{named}" {_size(1, 1)} src="{png_address(bars(flat, LEAST_WIDTH))}">{told}'
