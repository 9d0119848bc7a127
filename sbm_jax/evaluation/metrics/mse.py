"""How near generated data are to the true data of the same row."""

import numpy as np

from sbm_jax.evaluation.metrics.paired import Paired
from sbm_jax.evaluation.metrics.reconstruction import squared_error


class Mse(Paired):
    """The mean squared error per element."""

    name = "mse"

    def reason_against(self, data: np.ndarray) -> str:
        """Refuse ids."""
        return "ids have no squared error" if data.dtype.kind == "i" else ""

    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the error of each row."""
        return squared_error(true, generated)
