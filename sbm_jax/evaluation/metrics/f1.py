"""How well generated attributes are those of the row."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.metrics.base import Plan
from sbm_jax.evaluation.metrics.paired import Paired, PairedOptions


@checked_dataclass
class F1Options(PairedOptions):
    """What is generated from what, and when an attribute is there; `modality` must be named.

    Attributes:
      threshold: an attribute is there where its value is above.
    """

    threshold: float = 0.5


class F1(Paired):
    """The F1 score of binary attributes: of each row over its attributes, and the mean over rows.

    A row with no attribute, in which none is found either, scores 0, as with scikit-learn's `zero_division=0`.
    """

    Options = F1Options
    name = "f1"

    @classmethod
    def check(cls, options: F1Options, plan: Plan) -> None:
        """Check that the attributes are named, and the names of modalities."""
        field, expected = (
            "config.evaluation.metrics.f1.modality",
            f"the attributes, one of {', '.join(plan.modalities)}",
        )
        require(bool(options.modality), field, options.modality, expected)
        super().check(options, plan)

    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the score of each row, nan where a sample is not finite."""
        finite = finite_rows(generated)
        return np.where(finite, f1(true > self.options.threshold, generated > self.options.threshold), np.nan)


def f1(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return 2 |true ∧ found| / (|true| + |found|) of each row [N]; 0 where neither has an attribute.

    Args:
      true: bool [N, *shape].
      found: the same.
    """
    true, found = true.reshape(len(true), -1), found.reshape(len(found), -1)
    total = true.sum(axis=1) + found.sum(axis=1)
    return 2 * (true & found).sum(axis=1) / np.maximum(total, 1)
