"""Formats: in what form users have the data of a modality, and how it becomes the arrays that networks see."""

from sbm_jax.config import build
from sbm_jax.formats.array import ArrayFormat
from sbm_jax.formats.base import Format
from sbm_jax.formats.binary import Binary
from sbm_jax.formats.category import Category
from sbm_jax.formats.spectrogram import Spectrogram
from sbm_jax.formats.standardized import Standardized
from sbm_jax.formats.text import Text, build_vocabulary
from sbm_jax.registry import find
from sbm_jax.types import Modality

__all__ = ["FORMATS", "Format", "build_vocabulary", "make_format"]

FORMATS: dict[str, type[Format]] = {
    "array": ArrayFormat,
    "binary": Binary,
    "standardized": Standardized,
    "category": Category,
    "text": Text,
    "spectrogram": Spectrogram,
}
"""The formats of this package, by name."""


def make_format(modality: Modality) -> Format:
    """Return the format of a modality.

    Raises:
      SbmError: if there is none of that name, or its options do not fit the modality.
    """
    where = f"modality {modality.name!r}: format"
    cls = find(f"{where}:", modality.format.name, FORMATS, type[Format])
    return cls(modality, build(cls.Options, modality.format.options, f"{where}.options"))
