"""Reads the rows of given modalities from files, and writes generated rows to files.

Images in [0, 1] and masks are .png files (.jpg and .jpeg are read too), sounds that networks see as spectrograms are
.wav, texts and class names .txt, everything else .npy. Files written here can be read here.
"""

import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import wavfile

from sbm_jax.data import files, folders
from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError
from sbm_jax.formats import Format, make_format
from sbm_jax.formats.array import ArrayFormat
from sbm_jax.formats.binary import Binary
from sbm_jax.formats.category import Category
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.storage import write_atomically
from sbm_jax.types import Modality

PICTURES = (".png", ".jpg", ".jpeg")
"""The suffixes of images."""


def suffix(modality: Modality) -> str:
    """Return the suffix of files that rows of a modality are written to, such as ``".png"``."""
    values = make_format(modality)
    if _in_pixels(values):
        return ".png"
    if isinstance(values, Spectrogram):
        return ".wav"
    return ".txt" if _in_words(values) else ".npy"


def suffixes(modality: Modality) -> tuple[str, ...]:
    """Return the suffixes of files that rows of a modality may be read from."""
    written = suffix(modality)
    own = PICTURES if written == ".png" else (written,)
    return own if _in_words(make_format(modality)) else tuple(dict.fromkeys((*own, ".npy")))


def read_row(modality: Modality, path: pathlib.Path) -> Any:
    """Read one row in the form of the training data (see `types.FormatConfig`).

    Grey images are accepted where colour is expected. Sizes are compared before an image is decoded, and nothing is
    scaled, resampled or unpickled.

    Args:
      modality: modality of the row.
      path: path of the file.

    Raises:
      SbmError: if the file has another type or size, or cannot be read.
    """
    known, ending = suffixes(modality), path.suffix.lower()
    if ending not in known:
        raise SbmError(
            f"{path} ends in {ending or 'nothing'!r}; modality {modality.name!r} takes {', '.join(known)}. Convert it."
        )
    values = make_format(modality)
    if ending not in PICTURES:
        row = folders.read_file(path, values.options.rate if isinstance(values, Spectrogram) else 0)
        _refuse_several(path, row, modality)
        return row
    _require_size(path, modality)
    pixels = folders.read_file(path)
    if modality.shape[-1] == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return _as_mask(path, pixels) if isinstance(values, Binary) else pixels


def _refuse_several(path: pathlib.Path, row: Any, modality: Modality) -> None:
    """Raise `SbmError` if a file holds several rows of a modality."""
    if isinstance(row, np.ndarray) and row.ndim > 1 and row.shape[1:] == modality.shape:
        raise SbmError(
            f"{path} has the shape {list(row.shape)}; a file is one row, which modality {modality.name!r} expects to "
            f"be {list(modality.shape)}. For several rows, give a folder with a file for each."
        )


def row_of_text(modality: Modality, text: str) -> str | int:
    """Return the row that a text stands for: the text itself, or an integer class.

    Raises:
      SbmError: if the modality has neither texts nor classes, or its classes are integers and the text is not one.
    """
    values = make_format(modality)
    if _in_words(values):
        return text
    if not isinstance(values, Category):
        told = ", ".join(suffixes(modality))
        raise SbmError(f"modality {modality.name!r} takes no text; expected a file of type {told}. Give one.")
    try:
        return int(text)
    except ValueError:
        told = ", ".join(map(str, values.options.classes))
        raise SbmError(f"{modality.name!r} is {text!r}; expected one of {told}. Give one of them.") from None


def write_row(modality: Modality, row: np.ndarray, stem: pathlib.Path) -> pathlib.Path:
    """Write one row in the form of the training data, and return the path of its file.

    Args:
      modality: modality of the row.
      row: the row, as `TrainedSystem.generate` returns it for one sample.
      stem: path of the file without its suffix.

    Raises:
      SbmError: if it cannot be written.
    """
    path = stem.with_name(stem.name + suffix(modality))
    values, buffer = make_format(modality), io.BytesIO()
    if path.suffix == ".png":
        pixels = row == values.options.yes if isinstance(values, Binary) else np.asarray(row, np.float64)
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8).reshape(modality.shape)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    elif path.suffix == ".wav":
        wavfile.write(buffer, values.options.rate, np.round(row * (2**15 - 1)).astype(np.int16))
    elif path.suffix == ".txt":
        buffer.write(f"{row}\n".encode())
    else:
        np.save(buffer, row, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return path


def _in_pixels(values: Format) -> bool:
    """Return whether rows are images that 8 bits per channel can hold: masks, and grey or RGB in [0, 1]."""
    modality = values.modality
    if not values.is_picture or modality.shape[-1] == 4:
        return False
    if isinstance(values, Binary):
        return modality.shape[-1] == 1
    bounded = modality.likelihood in LIKELIHOODS and LIKELIHOODS[modality.likelihood].bounded
    return isinstance(values, ArrayFormat) and (modality.bounds == (0.0, 1.0) or (not modality.bounds and bounded))


def _in_words(values: Format) -> bool:
    """Return whether rows are strings."""
    return values.is_text or (isinstance(values, Category) and values.classes.dtype.kind == "U")


def _require_size(path: pathlib.Path, modality: Modality) -> None:
    """Refuse an image of another size before decoding it; height and width may be swapped, as cameras store them."""
    height, width = modality.shape[:2]
    found = files.image_size(path, "Write it again as PNG or JPEG.")
    if sorted(found) != sorted((height, width)):
        raise SbmError(
            f"{path} has {found[1]} x {found[0]} pixels; modality {modality.name!r} takes {width} x {height}. Crop "
            "or scale it to this size."
        )


def _as_mask(path: pathlib.Path, pixels: np.ndarray) -> np.ndarray:
    """Return black and white pixels, uint8 [H, W, 1], as bool."""
    if not np.isin(pixels, (0, 255)).all():
        raise SbmError(f"{path} has shades of grey; expected a mask, black for no and white for yes. Convert it.")
    return pixels == 255
