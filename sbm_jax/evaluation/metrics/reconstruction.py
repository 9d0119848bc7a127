"""How well autoencoders return what they are given."""

import collections
from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.estimates import BATCHES, estimate
from sbm_jax.evaluation.metrics.base import Evaluation, Metric, prefixed


class Reconstruction(Metric):
    """The error of reconstructed examples, and the share in which a classifier sees their class."""

    def result(self) -> Evaluation:
        """Return means over the examples; errors that are not finite are left out."""
        scene = self.scene
        if scene.subject.reconstruct is None:
            return Evaluation({}, {"reconstruction/mse": "the system has no autoencoders"}, {})
        groups = collections.defaultdict(list)
        for indices, count in batches(len(scene.examples), scene.batch_size):
            batch = {name: in_units(scene.examples.data[name][indices]) for name in scene.modalities}
            reconstructed = scene.subject.reconstruct(batch)
            outcomes = {f"reconstruction/mse/{name}": e for name, e in squared_errors(batch, reconstructed).items()}
            for question in scene.judged:
                truth = scene.examples.labels[question][indices]
                right = scene.classify(question, reconstructed) == truth[:, None]
                for m, name in enumerate(scene.modalities):
                    outcomes[prefixed("classifier", question, f"reconstruction/{name}")] = right[:, m]
            for name, values in outcomes.items():
                groups[name].append(values[:count][np.isfinite(values[:count])])
        lost = [name for name, parts in groups.items() if not any(map(len, parts))]
        metrics = {name: estimate(parts, BATCHES) for name, parts in groups.items() if name not in lost}
        return Evaluation(metrics, dict.fromkeys(lost, "no reconstruction is finite"), {})


def squared_errors(data: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the mean squared error per element of each row and modality: {modality: [B]}.

    Args:
      data: {modality: [B, *shape]}, images in [0, 1].
      other: the same modalities and shapes.
    """
    return {name: squared_error(values, np.asarray(other[name])) for name, values in data.items()}


def squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ‖x - y‖² / dim(x) of each row of arrays [B, *shape]: [B]."""
    difference = np.asarray(y, np.float64) - np.asarray(x, np.float64)
    return np.square(difference).reshape(len(x), -1).mean(axis=1)
