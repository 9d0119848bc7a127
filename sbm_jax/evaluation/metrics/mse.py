"""How near generated data are to the true data of the same row."""

import numpy as np

from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.metrics.base import Evaluation
from sbm_jax.evaluation.metrics.paired import Paired
from sbm_jax.evaluation.metrics.reconstruction import squared_error


class Mse(Paired):
    """The mean squared error per element, also over the variance of the data: 1 is what their mean would get."""

    name = "mse"

    def result(self) -> Evaluation:
        """Return the means, and those over the variances."""
        found = super().result()
        relative = {}
        for metric, estimate in found.metrics.items():
            data = in_units(self.scene.examples.data[metric.rpartition("/")[2]])
            variance = float(np.var(data, axis=0, dtype=np.float64).mean())
            if variance > 0:
                std = None if estimate.std is None else estimate.std / variance
                value = estimate.value / variance
                relative[metric.replace("mse/", "mse_over_variance/", 1)] = estimate._replace(value=value, std=std)
        return found._replace(metrics={**found.metrics, **relative})

    def reason_against(self, data: np.ndarray) -> str:
        """Refuse ids."""
        return "ids have no squared error" if data.dtype.kind == "i" else ""

    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the error of each row."""
        return squared_error(true, generated)
