"""Formats: in what form users have the data of a modality, and how it becomes the arrays that networks see."""

from typing import Any

import numpy as np

from sbm_jax.config import build
from sbm_jax.formats.array import ArrayFormat
from sbm_jax.formats.base import Format
from sbm_jax.formats.binary import Binary
from sbm_jax.formats.category import Category
from sbm_jax.formats.log_mel import LogMel
from sbm_jax.formats.pretrained_text import PretrainedText
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.formats.standardized import Standardized
from sbm_jax.formats.text import Text, build_vocabulary
from sbm_jax.formats.video import Video
from sbm_jax.registry import find
from sbm_jax.types import Modality

__all__ = ["FORMATS", "Format", "build_vocabulary", "completed", "is_complete", "make_format"]

FORMATS: dict[str, type[Format]] = {
    "array": ArrayFormat,
    "binary": Binary,
    "standardized": Standardized,
    "category": Category,
    "text": Text,
    "pretrained_text": PretrainedText,
    "spectrogram": Spectrogram,
    "log_mel": LogMel,
    "video": Video,
}
"""The formats of this package, by name."""


def make_format(modality: Modality) -> Format:
    """Return the format of a modality.

    Raises:
      SbmError: if there is none of that name, or its options do not fit the modality.
    """
    cls, options = _find(modality)
    return cls(modality, options)


def is_complete(modality: Modality) -> bool:
    """Return whether a modality leaves nothing to the data, such as a vocabulary."""
    cls, options = _find(modality)
    return cls.is_complete(modality, options)


def completed(modality: Modality, rows: np.ndarray) -> Modality:
    """Return a modality that is not complete with what training rows [N, ...], in the users' form, tell of it.

    Raises:
      SbmError: if they do not tell.
    """
    cls, options = _find(modality)
    return cls.completed(modality, options, rows)


def _find(modality: Modality) -> tuple[type[Format], Any]:
    """Return the format of a modality, and its options."""
    where = f"modality {modality.name!r}: format"
    cls = find(f"{where}:", modality.format.name, FORMATS, type[Format])
    return cls, build(cls.Options, modality.format.options, f"{where}.options")
