"""Mean squared error between generated data and the true data of the same row."""

import numpy as np

from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.metrics.base import Evaluation
from sbm_jax.evaluation.metrics.paired import Paired
from sbm_jax.evaluation.metrics.reconstruction import squared_error

RELATIVE = "mse_over_variance"


class Mse(Paired):
    """The mean squared error per element, also relative to the variance of the data: their mean would score 1."""

    name = "mse"

    def result(self) -> Evaluation:
        """Return the mean errors, and their ratios to the variances."""
        found = super().result()
        metrics, missing = dict(found.metrics), dict(found.not_available)
        for metric, estimate in found.metrics.items():
            target = metric.rpartition("/")[2]
            data = in_units(self.scene.examples.data[target][self.complete[target]])
            variance, name = float(np.var(data, axis=0, dtype=np.float64).mean()), metric.replace("mse", RELATIVE, 1)
            if variance > 0:
                std = None if estimate.std is None else estimate.std / variance
                metrics[name] = estimate._replace(value=estimate.value / variance, std=std)
            else:
                missing[name] = "the examples do not differ"
        return found._replace(metrics=metrics, not_available=missing)

    def reason_against(self, data: np.ndarray) -> str:
        """Return why data [N, *shape] cannot be compared; "" unless they are ids."""
        return "ids have no squared error" if data.dtype.kind == "i" else ""

    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the error of each row."""
        return squared_error(true, generated)
