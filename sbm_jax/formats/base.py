"""What a format is."""

import abc
from typing import Any, ClassVar

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError
from sbm_jax.types import Modality


@checked_dataclass
class NoOptions:
    """Of formats that have none."""


class Format(abc.ABC):
    """The form in which users have the data of a modality, and what turns it into arrays and back.

    Attributes:
      Options: a `checked_dataclass`, built from the modality's ``format.options``.
      modality: whose data.
    """

    Options: ClassVar[type] = NoOptions

    def __init__(self, modality: Modality, options: Any):
        """Bind the format to a modality; subclasses raise `SbmError` for options that do not fit it."""
        self.modality, self.options = modality, options

    @abc.abstractmethod
    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return the array [N, *shape] of N rows in the users' form.

        What is an array [N, *shape] already is returned as it is by formats that can tell the two apart. The values are
        checked later, as those of all arrays are.

        Args:
          values: N rows.
          where: they come from, for messages.

        Raises:
          SbmError: if they have another form.
        """

    @abc.abstractmethod
    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return rows [N, *shape] in the users' form, which `to_array` takes back."""

    def refuse(self, where: str, found: str, expected: str) -> SbmError:
        """Return the error for rows in another form."""
        name = self.modality.name
        return SbmError(
            f"{where} {found}; modality {name!r} with the format {self.modality.format.name!r} expects {expected}. "
            "Convert the data, or change the format."
        )
