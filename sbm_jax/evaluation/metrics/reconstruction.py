"""How well autoencoders return what they are given."""

import collections

import numpy as np

from sbm_jax.evaluation.batches import batches, finite_rows, in_units
from sbm_jax.evaluation.estimates import BATCHES, estimate
from sbm_jax.evaluation.metrics.base import Evaluation, Metric, prefixed


class Reconstruction(Metric):
    """The error of reconstructed examples, of ids the share that is right, and what a classifier sees in them.

    Joint systems reconstruct from all modalities, so only examples that have all are measured.
    """

    def result(self) -> Evaluation:
        """Return means over the examples; errors that are not finite are left out."""
        scene = self.scene
        if scene.subject.reconstruct is None:
            return Evaluation({}, {"reconstruction/mse": "the system has no autoencoders"}, {})
        groups = collections.defaultdict(list)
        for indices, count in batches(len(scene.complete), scene.batch_size):
            batch = {name: in_units(scene.complete.data[name][indices]) for name in scene.modalities}
            reconstructed = scene.subject.reconstruct(batch)
            outcomes = dict(_outcome(name, x, np.asarray(reconstructed[name])) for name, x in batch.items())
            for question in scene.judged:
                truth = scene.complete.labels[question][indices]
                right = scene.classify(question, reconstructed) == truth[:, None]
                for m, name in enumerate(scene.modalities):
                    outcomes[prefixed("classifier", question, f"reconstruction/{name}")] = right[:, m]
            for name, values in outcomes.items():
                groups[name].append(values[:count][np.isfinite(values[:count])])
        lost = [name for name, parts in groups.items() if not any(map(len, parts))]
        metrics = {name: estimate(parts, BATCHES) for name, parts in groups.items() if name not in lost}
        return Evaluation(metrics, dict.fromkeys(lost, "no reconstruction is finite"), {})


def _outcome(name: str, x: np.ndarray, y: np.ndarray) -> tuple[str, np.ndarray]:
    """Return what is measured of a modality, and its value for each row [B] of data and reconstructions."""
    if x.dtype.kind == "i":
        return f"reconstruction/token_accuracy/{name}", token_accuracy(x, y)
    return f"reconstruction/mse/{name}", squared_error(x, y)


def token_accuracy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the share of the ids of each sequence x [B, L] that y has at the same place: [B].

    Padding, 0, does not count; nan for a sequence without any id, or a sample that diverged.
    """
    real = x > 0
    right = ((x == y) & real).sum(axis=1)
    count = np.where(finite_rows(y), real.sum(axis=1), 0)
    return np.divide(right, count, out=np.full(len(x), np.nan), where=count > 0)


def squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ‖x - y‖² / dim(x) of each row of arrays [B, *shape]: [B]."""
    difference = np.asarray(y, np.float64) - np.asarray(x, np.float64)
    return np.square(difference).reshape(len(x), -1).mean(axis=1)
