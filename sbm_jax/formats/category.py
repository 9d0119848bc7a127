"""Class labels, by name or number."""

from typing import Any

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.formats.base import Format
from sbm_jax.types import Modality


@checked_dataclass
class CategoryOptions:
    """The classes.

    Attributes:
      classes: distinct strings or integers, in the order of the entries of one-hot vectors.
    """

    classes: tuple[Any, ...] = ()

    def __post_init__(self):
        several = len({*self.classes}) == len(self.classes) >= 2
        require(several, "format.options.classes", self.classes, "two or more different classes")
        alike = all(isinstance(c, str) for c in self.classes) or all(isinstance(c, int) for c in self.classes)
        require(alike, "format.options.classes", self.classes, "strings, or integers")


class Category(Format):
    """Classes [N], which networks see as one-hot vectors [N, K]."""

    Options = CategoryOptions
    passes_arrays = True

    def __init__(self, modality: Modality, options: CategoryOptions):
        """Check that the modality has an entry for each class."""
        super().__init__(modality, options)
        expected = f"({len(options.classes)},), an entry for each class"
        fits = modality.shape == (len(options.classes),)
        require(fits, f"modality {modality.name!r}: shape", modality.shape, expected)
        self.classes = np.array(options.classes)

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Convert classes [N] or [N, 1] to one-hot vectors, float32 [N, K]; vectors [N, K] are returned unchanged.

        Raises:
          SbmError: if a class is unknown or the values have another type or shape.
        """
        values = np.asarray(values)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        elif values.ndim == 2:
            return values
        if values.ndim != 1 or values.dtype.kind not in ("U" if self.classes.dtype.kind == "U" else "ui"):
            raise self.refuse(where, f"is {values.dtype} {list(values.shape)}", f"one of {self._told} for each row")
        matches = values[:, None] == self.classes
        unknown = np.flatnonzero(~matches.any(axis=1))
        if len(unknown):
            raise SbmError(
                f"{where} has {values[unknown[0]].item()!r} in row {unknown[0]}; modality {self.modality.name!r} knows "
                f"{self._told}. Fix the data, or name all classes in its format.options.classes."
            )
        return matches.astype(np.float32)

    @property
    def _told(self) -> str:
        return ", ".join(map(repr, self.options.classes))

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return the most probable class [N] of each vector [N, K]."""
        return self.classes[np.argmax(array, axis=-1)]
