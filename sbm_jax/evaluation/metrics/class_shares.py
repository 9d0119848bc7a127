"""Is every class generated? Shares of the classes, compared with what a perfect generator would get by chance."""

import collections
from collections.abc import Sequence

import numpy as np

from sbm_jax.evaluation.estimates import DRAWS, Estimate, estimate
from sbm_jax.evaluation.metrics.base import (
    LABEL,
    NO_CLASSIFIER,
    NO_LABELS,
    Draw,
    Evaluation,
    Metric,
    NoOptions,
    Scene,
    prefixed,
)
from sbm_jax.evaluation.observed_sets import UNCONDITIONAL, Ask
from sbm_jax.types import Split

NUM_DRAWS = 4000
"""The number of simulated sample sets of a perfect generator."""


class ClassShares(Metric):
    """The share of each class in joint samples, for each question; metrics are named ``coverage/...``."""

    def __init__(self, options: NoOptions, scene: Scene):
        """Request joint samples if there is a classifier."""
        super().__init__(options, scene)
        self.asks = (Ask(UNCONDITIONAL),) if scene.tools.classifiers else ()
        self.classes: dict[str, dict[int, list[np.ndarray]]] = {
            question: collections.defaultdict(list) for question in scene.tools.classifiers
        }  # {question: {repeat: classes of each draw}}

    def look(self, draw: Draw) -> None:
        """Collect the predicted classes."""
        for question, repeats in self.classes.items():
            repeats[draw.repeat].append(draw.classes(question))

    def result(self) -> Evaluation:
        """Return the shares, and their distance from those of real data."""
        found = Evaluation({}, {}, {})
        if not self.classes:
            return found._replace(not_available={"coverage": NO_CLASSIFIER})
        for question, repeats in self.classes.items():
            num_classes = self.scene.tools.num_classes[question]
            joint = [np.concatenate(parts) for parts in repeats.values()]
            metrics, missing = measure(joint, num_classes, self.scene.test.labels.get(question))
            found.metrics.update(_named(question, metrics))
            found.not_available.update(_named(question, missing))
            name = "class_shares" if question == LABEL else f"class_shares/{question}"
            found.figures[name] = by_modality(np.concatenate(joint), num_classes)
        return found

    def of_real(self, train: Split) -> dict[str, Estimate]:
        """Return the class shares of the test data, which samples should match."""
        del train
        metrics: dict[str, Estimate] = {}
        for question, num_classes in self.scene.tools.num_classes.items():
            if question in self.scene.test.labels:
                metrics |= _named(question, of_real(self.scene.test.labels[question], num_classes))
        return metrics


def _named(question: str, found: dict) -> dict:
    return {prefixed("coverage", question, name): value for name, value in found.items()}


def by_modality(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of each class among each modality's samples, [M, num_classes], of classes [B, M]."""
    return (predicted[:, :, None] == np.arange(num_classes)).mean(axis=0)


def measure(
    repeats: Sequence[np.ndarray], num_classes: int, labels: np.ndarray | None
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return the share of each class, the smallest share, and the distance from the real shares.

    ``class_<k>`` is the share of class k over all modalities of all joint samples. ``min`` is the smallest share among
    the classes of real data, with the spread of that share. ``total_variation`` is half the sum of absolute differences
    from the shares of the labels, where samples that are not finite count as a class that real data lack.

    For a finite number of samples, chance biases the minimum downwards and the distance upwards. ``min_expected`` and
    ``total_variation_expected`` are what a perfect generator would get. All modalities of its joint samples show one
    class, so the expectation counts joint samples, not modalities.

    Args:
      repeats: predicted classes of the joint samples of each repeat, int [B, M], `NO_CLASS` where not finite.
      num_classes: K.
      labels: int [N], labels of the real data, or None.

    Returns:
      {name: estimate}, and {name: why it is not available}.
    """
    shown = [(predicted[:, :, None] == np.arange(num_classes)).mean(axis=1) for predicted in repeats]  # [B, K]
    classes = [estimate([one[:, k] for one in shown]) for k in range(num_classes)]
    metrics = {f"class_{k}": share for k, share in enumerate(classes)}
    if labels is None:
        metrics["min"] = min(classes, key=lambda share: share.value)
        missing = ("min_expected", "total_variation", "total_variation_expected")
        return metrics, dict.fromkeys(missing, NO_LABELS)
    real = real_shares(labels, num_classes)
    metrics["min"] = min((classes[k] for k in np.flatnonzero(real)), key=lambda share: share.value)
    shares = np.array([share.value for share in classes])
    distance = (np.abs(shares - real).sum() + 1.0 - shares.sum()) / 2
    metrics["total_variation"] = Estimate(float(distance), None, classes[0].n)
    return metrics | of_perfect(real, classes[0].n), {}


def of_perfect(real: np.ndarray, count: int, seed: int = 0) -> dict[str, Estimate]:
    """Simulate the minimum and the distance for independent draws from the real shares [K].

    Args:
      real: shares of the classes, [K].
      count: number of draws, one per joint sample.
      seed: seed of the simulation.
    """
    shares = np.random.default_rng(seed).multinomial(count, real, size=NUM_DRAWS) / count
    found = {
        "min": shares[:, real > 0].min(axis=1),
        "total_variation": np.abs(shares - real).sum(axis=1) / 2,
    }
    return {
        f"{name}_expected": Estimate(float(values.mean()), float(values.std(ddof=1)), count, DRAWS)
        for name, values in found.items()
    }


def real_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of each class among labels [N], [K]."""
    return np.bincount(labels, minlength=num_classes) / len(labels)


def of_real(labels: np.ndarray, num_classes: int) -> dict[str, Estimate]:
    """Return {``real/class_<k>``: share of class k among labels [N]}."""
    shares = real_shares(labels, num_classes)
    return {f"real/class_{k}": Estimate(float(share), None, len(labels)) for k, share in enumerate(shares)}
