"""How much of a mask its generated counterpart covers."""

import numpy as np

from sbm_jax.evaluation.metrics.binary import Binary


class Iou(Binary):
    """The intersection over union of binary masks: of each row over its entries, and the mean over rows.

    It is scikit-learn's `jaccard_score(average="samples", zero_division=0)`: a row whose mask is empty, and generated
    empty too, scores 0, as with F1, which is 2 IoU / (1 + IoU) of each row.
    """

    name = "iou"

    def score(self, true: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the score of each row."""
        return iou(true, found)


def iou(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return |true ∧ found| / |true ∨ found| of each row [N]; 0 where both are empty.

    Args:
      true: bool [N, *shape].
      found: the same.
    """
    true, found = true.reshape(len(true), -1), found.reshape(len(found), -1)
    return (true & found).sum(axis=1) / np.maximum((true | found).sum(axis=1), 1)
