"""Is every class generated? Shares of the classes, beside what a perfect generator would get by chance."""

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
"""Simulated sets of samples of a perfect generator."""


class ClassShares(Metric):
    """The share of each class in joint samples, for each question; metrics are called ``coverage/...``."""

    def __init__(self, options: NoOptions, scene: Scene):
        """Ask for joint samples, where there is a classifier."""
        super().__init__(options, scene)
        self.asks = (Ask(UNCONDITIONAL),) if scene.tools.classifiers else ()
        self.classes: dict[str, dict[int, list[np.ndarray]]] = {
            question: collections.defaultdict(list) for question in scene.tools.classifiers
        }  # {question: {repeat: classes of each draw}}

    def look(self, draw: Draw) -> None:
        """Take the classes that are seen."""
        for question, repeats in self.classes.items():
            repeats[draw.repeat].append(draw.classes(question))

    def result(self) -> Evaluation:
        """Return shares, and their distance from those of real data."""
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
        """Return the shares of the classes of the test data, which samples are to have."""
        del train
        metrics: dict[str, Estimate] = {}
        for question, num_classes in self.scene.tools.num_classes.items():
            if question in self.scene.test.labels:
                metrics |= _named(question, of_real(self.scene.test.labels[question], num_classes))
        return metrics


def _named(question: str, found: dict) -> dict:
    return {prefixed("coverage", question, name): value for name, value in found.items()}


def by_modality(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of each modality's samples [B, M] that show each class: [M, num_classes]."""
    return (predicted[:, :, None] == np.arange(num_classes)).mean(axis=0)


def measure(
    repeats: Sequence[np.ndarray], num_classes: int, labels: np.ndarray | None
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return the share of each class, the smallest share, and the distance from the real shares.

    ``class_<k>`` is the share of class k in all modalities of all joint samples. ``min`` is the
    smallest of them, over the classes that real data have; its spread is that of this class's share.
    ``total_variation`` is half the sum of absolute differences from the shares of the labels, a sample that is
    not finite being of a class that real data lack.

    The minimum is biased downwards and the distance upwards, by what chance does to so many samples. What a perfect
    generator would get is beside them, as ``min_expected`` and ``total_variation_expected``. All
    modalities of a joint sample of a perfect generator show one class, so that joint samples count, not modalities.

    Args:
      repeats: classes seen in the joint samples of each repeat, int [B, M], `NO_CLASS` where not finite.
      num_classes: K.
      labels: int [N], those of the real data, or None.

    Returns:
      The estimates, and what is not available, with the reason.
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
    """Return what independent draws from the real shares [K] get for the minimum and the distance, by simulation.

    Args:
      real: shares [K] of the classes.
      count: draws of a class: joint samples.
      seed: of the simulation.
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
    """Return the share of each class among labels [N]: [K]."""
    return np.bincount(labels, minlength=num_classes) / len(labels)


def of_real(labels: np.ndarray, num_classes: int) -> dict[str, Estimate]:
    """Return the share of each class among labels [N], by name with ``real``."""
    shares = real_shares(labels, num_classes)
    return {f"real/class_{k}": Estimate(float(share), None, len(labels)) for k, share in enumerate(shares)}
