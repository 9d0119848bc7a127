"""Intersection over union of generated masks."""

import numpy as np

from sbm_jax.evaluation.metrics.binary import Binary


class Iou(Binary):
    """The intersection over union of binary masks: computed over the entries of each row, and averaged over rows.

    It equals scikit-learn's `jaccard_score(average="samples", zero_division=0)`: a row with empty true and generated
    masks scores 0, as with F1, which equals 2 IoU / (1 + IoU) for each row.
    """

    name = "iou"

    def score(self, true: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the score of each row."""
        return iou(true, found)


def iou(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return |true ∧ found| / |true ∨ found| of each row [N]; 0 where both are empty.

    Args:
      true: bool [N, *shape].
      found: bool [N, *shape].
    """
    true, found = true.reshape(len(true), -1), found.reshape(len(found), -1)
    return (true & found).sum(axis=1) / np.maximum((true | found).sum(axis=1), 1)
