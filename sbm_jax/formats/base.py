"""The interface of formats."""

import abc
from typing import Any, ClassVar, TypeVar

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.types import Array, Modality

Numbers = TypeVar("Numbers", Array, np.ndarray)


@checked_dataclass
class ArrayOptions:
    """The layout of users' rows.

    Attributes:
      without_axis: whether users' rows lack the last axis of size 1: scalars [N], grey images [N, H, W].
    """

    without_axis: bool = False


class Format(abc.ABC):
    """Converts the data of a modality between the users' form and network arrays.

    Attributes:
      Options: a `checked_dataclass`, built from the modality's ``format.options``.
      is_text: whether rows are strings.
      num_sequences: number of id sequences side by side in a row, all of one length and padded with 0 at the end.
      passes_arrays: whether `to_array` returns network arrays unchanged, so that rows on disk may have this format.
      modality: the modality whose data are converted.
    """

    Options: ClassVar[type] = ArrayOptions
    passes_arrays: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    num_sequences: ClassVar[int] = 1

    def __init__(self, modality: Modality, options: Any):
        """Bind the format to a modality; raises `SbmError` if the options do not fit it."""
        self.modality, self.options = modality, options
        if self.lacks_axis:
            where = f"modality {modality.name!r}: shape, with format.options.without_axis,"
            require(modality.shape[-1] == 1, where, modality.shape, "1 as its last size")

    @classmethod
    def is_complete(cls, modality: Modality, options: Any) -> bool:
        """Return whether nothing, such as a vocabulary, is left to infer from the data."""
        del modality, options
        return True

    @classmethod
    def completed(cls, modality: Modality, options: Any, rows: np.ndarray) -> Modality:
        """Return the modality with what it lacks inferred from training rows [N, ...] in the users' form.

        Raises:
          SbmError: if it cannot be inferred from them.
        """
        del options, rows
        return modality

    @property
    def lacks_axis(self) -> bool:
        """Whether users' rows lack the last axis of size 1."""
        return isinstance(self.options, ArrayOptions) and self.options.without_axis

    @property
    def is_picture(self) -> bool:
        """Whether rows are viewable images (height, width, channels): grey, RGB or RGBA, of any range of values."""
        shape = self.modality.shape
        return len(shape) == 3 and shape[-1] in (1, 3, 4)

    def with_axis(self, values: np.ndarray) -> np.ndarray:
        """Return values, with a last axis of size 1 added where that is all they lack."""
        values = np.asarray(values)
        lacks = self.modality.shape[-1] == 1 and values.ndim == len(self.modality.shape)
        return values[..., None] if lacks else values

    def like_rows(self, array: np.ndarray) -> np.ndarray:
        """Return an array, without the last axis where users' rows lack it."""
        return array[..., 0] if self.lacks_axis else array

    @abc.abstractmethod
    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Convert N rows in the users' form to an array [N, *shape].

        The values are checked later, like those of all arrays.

        Args:
          values: N rows in the users' form.
          where: source of the rows, for messages.

        Raises:
          SbmError: if the rows are not in the users' form.
        """

    @abc.abstractmethod
    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Convert an array [N, *shape] to rows in the users' form, which `to_array` accepts."""

    def to_network(self, values: Numbers) -> Numbers:
        """Convert numbers [..., *shape] in the users' units to those that networks see.

        JAX can trace it, so that exported programs take the users' units. Most formats have none of their own.
        """
        return values

    def from_network(self, array: Numbers) -> Numbers:
        """Convert numbers [..., *shape] that networks see to the users' units; the inverse of `to_network`."""
        return array

    def check_files(self) -> None:
        """Raise `SbmError` if a file named in the options cannot be used; most formats name none."""
        del self  # not abstract: most formats have nothing to check

    def filled(self, array: np.ndarray) -> np.ndarray:
        """Return generated arrays [N, *shape] with what codecs leave to the host filled in; most leave nothing."""
        return array

    def to_texts(self, array: np.ndarray) -> np.ndarray | None:
        """Return what reports show for arrays [N, *shape] instead of images or bars, [N, ...], or None."""
        return self.to_raw(array) if self.modality.vocabulary_size else None

    def refuse(self, where: str, found: str, expected: str) -> SbmError:
        """Return the error for rows that are not in the expected form."""
        name = self.modality.name
        return SbmError(
            f"{where} {found}; modality {name!r} with the format {self.modality.format.name!r} expects {expected}. "
            "Convert the data, or change the format."
        )
