"""Arrays of yes/no values: tags, one-hot classes, image masks."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.formats.base import ArrayOptions, Format
from sbm_jax.types import Modality

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64))
_TYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")


@checked_dataclass
class BinaryOptions(ArrayOptions):
    """How yes and no are encoded.

    Attributes:
      yes: the value that stands for yes.
      no: the value that stands for no.
      dtype: NumPy name of the values' type.
      names: names of a vector's entries; reports list those that are yes. () for none.
    """

    yes: int = 1
    no: int = 0
    dtype: str = "bool"
    names: tuple[str, ...] = ()

    def __post_init__(self):
        require(self.yes != self.no, "format.options.yes", self.yes, f"a value other than that for no ({self.no})")
        if self.dtype not in _TYPES:
            raise unknown("type (format.options.dtype)", self.dtype, _TYPES)


class Binary(Format):
    """Values `no` and `yes`, which networks see as 0 and 1; booleans are accepted too.

    A generated value is yes if its probability is above 0.5; with the categorical likelihood, only the most probable
    class of a one-hot vector is yes.
    """

    Options = BinaryOptions

    def __init__(self, modality: Modality, options: BinaryOptions):
        """Check the names."""
        super().__init__(modality, options)
        where = f"modality {modality.name!r}: format.options.names"
        fit = not options.names or modality.shape == (len(options.names),)
        require(fit, where, options.names, f"one for each entry of a vector; the shape is {modality.shape}")

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return float32 [N, *shape], 0 for no and 1 for yes."""
        values = self.with_axis(values)
        if values.shape[1:] != self.modality.shape:
            raise self.refuse(where, f"has the shape {list(values.shape)}", f"{['N', *self.modality.shape]}")
        yes, no = (True, False) if values.dtype == np.bool_ else (self.options.yes, self.options.no)
        known = (values == no) | (values == yes)
        if not known.all():
            raise SbmError(
                f"{where} has {values[~known].tolist()[0]!r}; modality {self.modality.name!r} expects {no} (no) or "
                f"{yes} (yes). Fix the data, or change its format.options.yes."
            )
        return (values == yes).astype(np.float32)

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return `no` and `yes` in the type of the data."""
        values = np.where(self._is_yes(array), self.options.yes, self.options.no)
        return self.like_rows(values.astype(self.options.dtype))

    def to_texts(self, array: np.ndarray) -> np.ndarray | None:
        """Return the names of the entries that are yes, strings [N], or None if the entries have no names."""
        names = np.array(self.options.names)
        return np.array([", ".join(names[row]) for row in self._is_yes(array)]) if len(names) else None

    def _is_yes(self, array: np.ndarray) -> np.ndarray:
        """Return which entries are yes, bool [N, *shape]."""
        if self.modality.likelihood == "categorical":
            return np.arange(array.shape[-1]) == np.argmax(array, axis=-1)[..., None]
        return array > 0.5
