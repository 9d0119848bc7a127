"""How well autoencoders return what they are given."""

from collections.abc import Mapping

import numpy as np


def squared_error(data: Mapping[str, np.ndarray], reconstructed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each row's mean squared error per element, ‖x - x̂‖² / dim(x): {modality: [B]}.

    Args:
      data: {modality: [B, *shape]}, images in [0, 1].
      reconstructed: the same modalities and shapes.
    """
    errors = {}
    for name, values in data.items():
        difference = np.asarray(reconstructed[name], np.float64) - np.asarray(values, np.float64)
        errors[name] = np.square(difference).reshape(len(values), -1).mean(axis=1)
    return errors
