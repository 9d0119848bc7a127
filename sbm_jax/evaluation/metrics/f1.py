"""F1 score of generated attributes or masks."""

import numpy as np

from sbm_jax.evaluation.metrics.binary import Binary


class F1(Binary):
    """The F1 score of binary data: computed over the entries of each row, and averaged over rows.

    It equals scikit-learn's `f1_score(average="samples", zero_division=0)`: a row without true or generated positives
    scores 0.
    """

    name = "f1"

    def score(self, true: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the score of each row."""
        return f1(true, found)


def f1(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return 2 |true ∧ found| / (|true| + |found|) of each row [N]; 0 where both are empty.

    Args:
      true: bool [N, *shape].
      found: bool [N, *shape].
    """
    true, found = true.reshape(len(true), -1), found.reshape(len(found), -1)
    total = true.sum(axis=1) + found.sum(axis=1)
    return 2 * (true & found).sum(axis=1) / np.maximum(total, 1)
