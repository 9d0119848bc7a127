"""Reconstruction error of autoencoders."""

import collections

import numpy as np

from sbm_jax.evaluation.batches import batches, finite_rows, in_units
from sbm_jax.evaluation.estimates import BATCHES, estimate
from sbm_jax.evaluation.metrics.base import Evaluation, Metric, prefixed


class Reconstruction(Metric):
    """The squared error of reconstructed examples, or the accuracy of ids, and the classifiers' accuracy on them.

    Joint systems reconstruct from all modalities, so only complete examples are measured.
    """

    def result(self) -> Evaluation:
        """Return means over the examples, leaving out errors that are not finite."""
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
    """Return the name of a modality's metric, and its value [B] for each row of data x and reconstructions y."""
    if x.dtype.kind == "i":
        return f"reconstruction/token_accuracy/{name}", token_accuracy(x, y)
    return f"reconstruction/mse/{name}", squared_error(x, y)


def token_accuracy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the share of ids of each sequence x [B, L] that y has in the same position, [B].

    Padding (0) is ignored; NaN for a sequence of padding only, or a diverged sample.
    """
    real = x > 0
    right = ((x == y) & real).sum(axis=1)
    count = np.where(finite_rows(y), real.sum(axis=1), 0)
    return np.divide(right, count, out=np.full(len(x), np.nan), where=count > 0)


def squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ‖x - y‖² / dim(x) for each row of arrays [B, *shape], [B]."""
    difference = np.asarray(y, np.float64) - np.asarray(x, np.float64)
    return np.square(difference).reshape(len(x), -1).mean(axis=1)
