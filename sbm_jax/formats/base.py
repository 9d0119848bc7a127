"""What a format is."""

import abc
from typing import Any, ClassVar

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.types import Modality


@checked_dataclass
class ArrayOptions:
    """What rows look like.

    Attributes:
      without_axis: whether users' rows lack the last axis, of size 1: single values [N], grey pictures [N, H, W].
    """

    without_axis: bool = False


class Format(abc.ABC):
    """The form in which users have the data of a modality, and what turns it into arrays and back.

    Attributes:
      Options: a `checked_dataclass`, built from the modality's ``format.options``.
      is_text: whether rows are strings.
      num_sequences: of ids that lie side by side in a row, each of the same length and padded with 0 at its end.
      passes_arrays: whether `to_array` returns what networks see as it is, so that rows on disk may have this format.
      modality: whose data.
    """

    Options: ClassVar[type] = ArrayOptions
    passes_arrays: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    num_sequences: ClassVar[int] = 1

    def __init__(self, modality: Modality, options: Any):
        """Bind the format to a modality; it raises `SbmError` for options that do not fit it."""
        self.modality, self.options = modality, options
        if self.lacks_axis:
            where = f"modality {modality.name!r}: shape, with format.options.without_axis,"
            require(modality.shape[-1] == 1, where, modality.shape, "1 as its last size")

    @classmethod
    def is_complete(cls, modality: Modality, options: Any) -> bool:
        """Return whether a modality with these options leaves nothing to the data, such as a vocabulary."""
        del modality, options
        return True

    @classmethod
    def completed(cls, modality: Modality, options: Any, rows: np.ndarray) -> Modality:
        """Return the modality with what training rows [N, ...], in the users' form, tell of it; see `is_complete`.

        Raises:
          SbmError: if they do not tell.
        """
        del options, rows
        return modality

    @property
    def lacks_axis(self) -> bool:
        """Whether users' rows lack the last axis, of size 1."""
        return isinstance(self.options, ArrayOptions) and self.options.without_axis

    @property
    def is_picture(self) -> bool:
        """Whether rows are pictures to look at, (height, width, channels): grey, RGB or RGBA, whatever their values."""
        shape = self.modality.shape
        return len(shape) == 3 and shape[-1] in (1, 3, 4)

    def with_axis(self, values: np.ndarray) -> np.ndarray:
        """Return values with the last axis, of size 1, where it is all that they lack."""
        values = np.asarray(values)
        lacks = self.modality.shape[-1] == 1 and values.ndim == len(self.modality.shape)
        return values[..., None] if lacks else values

    def like_rows(self, array: np.ndarray) -> np.ndarray:
        """Return an array without the last axis where users' rows lack it."""
        return array[..., 0] if self.lacks_axis else array

    @abc.abstractmethod
    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return the array [N, *shape] of N rows in the users' form.

        The values are checked later, as those of all arrays are.

        Args:
          values: N rows.
          where: they come from, for messages.

        Raises:
          SbmError: if they have another form.
        """

    @abc.abstractmethod
    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return rows [N, *shape] in the users' form, which `to_array` takes back."""

    def check_files(self) -> None:
        """Raise `SbmError` for files that the options name and that can not be used; most name none."""
        del self  # it is not abstract: there is nothing to check

    def filled(self, array: np.ndarray) -> np.ndarray:
        """Return generated arrays [N, *shape] with what codecs leave to the host, which most leave nothing."""
        return array

    def to_texts(self, array: np.ndarray) -> np.ndarray | None:
        """Return what reports show of arrays [N, *shape] in place of pictures or bars, [N, ...]; None for nothing."""
        return self.to_raw(array) if self.modality.vocabulary_size else None

    def refuse(self, where: str, found: str, expected: str) -> SbmError:
        """Return the error for rows in another form."""
        name = self.modality.name
        return SbmError(
            f"{where} {found}; modality {name!r} with the format {self.modality.format.name!r} expects {expected}. "
            "Convert the data, or change the format."
        )
