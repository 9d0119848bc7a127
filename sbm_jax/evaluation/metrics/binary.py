"""Base of metrics that compare binary data, such as masks and attributes, with the true data of the same row."""

import abc
from typing import ClassVar

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.metrics.base import Plan
from sbm_jax.evaluation.metrics.paired import Paired, PairedOptions
from sbm_jax.types import Split

MOST_CHECKED = 1000
"""The most rows that are checked to be binary."""


@checked_dataclass
class BinaryOptions(PairedOptions):
    """The compared and given modalities, and what counts as positive; `modality` must be set.

    Attributes:
      threshold: values above it are positive. The default rounds probabilities, as the papers do.
    """

    threshold: float = 0.5


class Binary(Paired):
    """The mean over rows of a score of binary data. Samples that are not finite are left out.

    Attributes:
      compared: the option that names the compared modality.
      most_between: largest share of the true values that may lie between the lowest and the highest; resized masks
        have soft edges.
    """

    Options = BinaryOptions
    compared: ClassVar[str] = "modality"
    most_between: ClassVar[float] = 0.5

    @classmethod
    def check(cls, options: BinaryOptions, plan: Plan) -> None:
        """Check that `modality` is set, and that all modalities are known."""
        field = f"config.evaluation.metrics.{cls.name}.modality"
        require(
            bool(options.modality), field, options.modality, f"a binary modality, one of {', '.join(plan.modalities)}"
        )
        super().check(options, plan)

    @classmethod
    def check_data(cls, options: BinaryOptions, test: Split) -> None:
        """Raise `SbmError` for ids and for data that are not binary."""
        name = getattr(options, cls.compared)
        rows = np.flatnonzero(test.having([name]))
        rows = rows[:: max(1, -(-len(rows) // MOST_CHECKED))]
        values = test.read([name], rows)[name]
        where = f"config.evaluation.metrics.{cls.name}.{cls.compared} is {name!r}, "
        if values.dtype.kind == "i":
            raise SbmError(f"{where}whose data are ids; expected binary data. Name another modality.")
        between = values_between(values)
        if between.size > cls.most_between * values.size:
            expected = f"at most {cls.most_between:.0%}" if cls.most_between else "none"
            raise SbmError(
                f"{where}whose data are not binary: {100 * between.size / values.size:.3g}% of the values, such as "
                f"{between[0]:.6g}, lie between the lowest and the highest; expected {expected}. Name another "
                "modality, or fix the data."
            )

    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the score of each row, NaN where a sample is not finite."""
        threshold = self.options.threshold
        scores = np.asarray(self.score(true > threshold, generated > threshold), np.float64)
        scores[~finite_rows(generated)] = np.nan
        return scores

    @abc.abstractmethod
    def score(self, true: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the score of each row, [R, ...], from true and generated positives, bool [R, *shape]."""


def values_between(values: np.ndarray) -> np.ndarray:
    """Return the finite values strictly between the lowest and the highest, flattened."""
    finite = values[np.isfinite(values)]
    return finite[(finite != finite.min()) & (finite != finite.max())] if finite.size else finite
