"""Numbers in physical units, standardised for networks."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.formats.base import ArrayOptions, Format, Numbers
from sbm_jax.types import Array, Modality


@checked_dataclass
class StandardizedOptions(ArrayOptions):
    """The mean and standard deviation that standardise the data.

    Attributes:
      mean: one number for all entries, or one for each entry along the last axis.
      std: likewise, positive.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        require(bool(self.std) and min(self.std) > 0, "format.options.std", self.std, "positive numbers")


class Standardized(Format):
    """Numbers x that networks see as (x - mean) / std."""

    Options = StandardizedOptions

    def __init__(self, modality: Modality, options: StandardizedOptions):
        """Check that there is one mean and standard deviation, or one per entry of the last axis."""
        super().__init__(modality, options)
        for name in ("mean", "std"):
            values = getattr(options, name)
            expected = f"1 number, or {modality.shape[-1]}, for the last axis of {modality.shape}"
            where = f"modality {modality.name!r}: format.options.{name}"
            require(len(values) in (1, modality.shape[-1]), where, values, expected)
        self.mean, self.std = (np.asarray(values, np.float64) for values in (options.mean, options.std))

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Return (x - mean) / std, float32 [N, *shape], of numbers [N, *shape]; a last axis of size 1 is optional."""
        values = self.with_axis(values)
        if values.dtype.kind not in "uif" or values.shape[1:] != self.modality.shape:
            expected = f"numbers [N, {', '.join(map(str, self.modality.shape))}]"
            raise self.refuse(where, f"is {values.dtype} {list(values.shape)}", expected)
        return self.to_network(values.astype(np.float64)).astype(np.float32)

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Return mean + std x, float32."""
        return self.like_rows(self.from_network(array.astype(np.float64)).astype(np.float32))

    def to_network(self, values: Numbers) -> Numbers:
        """Return (x - mean) / std, in the type of x."""
        mean, std = self._like(values)
        return (values - mean) / std

    def from_network(self, array: Numbers) -> Numbers:
        """Return mean + std x, in the type of x."""
        mean, std = self._like(array)
        return array * std + mean

    def _like(self, array: Array | np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the mean and the standard deviation, with the type and as many axes as an array."""
        return tuple(x.astype(array.dtype).reshape(*(1,) * (array.ndim - 1), -1) for x in (self.mean, self.std))
