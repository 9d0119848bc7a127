"""Yes or no in many places: tags of a row, one-hot classes, masks of a picture."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.formats.base import ArrayOptions, Format
from sbm_jax.types import Modality

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64))
_TYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")


@checked_dataclass
class BinaryOptions(ArrayOptions):
    """How yes and no are written.

    Attributes:
      yes: the value that stands for yes.
      no: the value that stands for no.
      dtype: the type of the values, as NumPy names it.
      names: what the entries of vectors are called, which reports show of those that are yes; () for nothing.
    """

    yes: int = 1
    no: int = 0
    dtype: str = "bool"
    names: tuple[str, ...] = ()

    def __post_init__(self):
        require(self.yes != self.no, "format.options.yes", self.yes, f"another value than that for no ({self.no})")
        if self.dtype not in _TYPES:
            raise unknown("type (format.options.dtype)", self.dtype, _TYPES)


class Binary(Format):
    """Values `no` and `yes`, which networks see as 0 and 1; booleans are taken too.

    Generated ones are yes where their probability is above a half; one-hot vectors, of the categorical likelihood, are
    yes at their most probable class.
    """

    Options = BinaryOptions

    def __init__(self, modality: Modality, options: BinaryOptions):
        """Check the names."""
        super().__init__(modality, options)
        where = f"modality {modality.name!r}: format.options.names"
        fit = not options.names or modality.shape == (len(options.names),)
        require(fit, where, options.names, f"one for each entry of a vector, where the shape is {modality.shape}")

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return 0 and 1 as float32 [N, *shape]."""
        values = self.with_axis(values)
        if values.shape[1:] != self.modality.shape:
            raise self.refuse(where, f"has the shape {list(values.shape)}", f"{['N', *self.modality.shape]}")
        yes, no = (True, False) if values.dtype == np.bool_ else (self.options.yes, self.options.no)
        known = (values == no) | (values == yes)
        if not known.all():
            raise SbmError(
                f"{where} has {values[~known].tolist()[0]!r}; modality {self.modality.name!r} expects {no}, for no, or "
                f"{yes}, for yes. Fix the data, or change its format.options.yes."
            )
        return (values == yes).astype(np.float32)

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return `no` and `yes` in the type of the data."""
        values = np.where(self._is_yes(array), self.options.yes, self.options.no)
        return self.like_rows(values.astype(self.options.dtype))

    def to_texts(self, array: np.ndarray) -> np.ndarray | None:
        """Return the names of the entries that are yes, strings [N]; None where they have no names."""
        names = np.array(self.options.names)
        return np.array([", ".join(names[row]) for row in self._is_yes(array)]) if len(names) else None

    def _is_yes(self, array: np.ndarray) -> np.ndarray:
        """Return which entries are yes, bool [N, *shape]."""
        if self.modality.likelihood == "categorical":
            return np.arange(array.shape[-1]) == np.argmax(array, axis=-1)[..., None]
        return array > 0.5
