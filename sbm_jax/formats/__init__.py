"""Formats: the form in which users hold the data of a modality, and its conversion to and from network arrays."""

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
"""The built-in formats, by name."""


def make_format(modality: Modality) -> Format:
    """Return the format of a modality.

    Raises:
      SbmError: if the format is unknown, or its options do not fit the modality.
    """
    cls, options = _find(modality)
    return cls(modality, options)


def is_complete(modality: Modality) -> bool:
    """Return whether a modality is fully specified, with nothing, such as a vocabulary, left to infer from the data."""
    cls, options = _find(modality)
    return cls.is_complete(modality, options)


def completed(modality: Modality, rows: np.ndarray) -> Modality:
    """Return an incomplete modality with what it lacks inferred from training rows [N, ...] in the users' form.

    Raises:
      SbmError: if it cannot be inferred from them.
    """
    cls, options = _find(modality)
    return cls.completed(modality, options, rows)


def _find(modality: Modality) -> tuple[type[Format], Any]:
    """Return the format class of a modality and its options."""
    where = f"modality {modality.name!r}: format"
    cls = find(f"{where}:", modality.format.name, FORMATS, type[Format])
    return cls, build(cls.Options, modality.format.options, f"{where}.options")
