"""Is every class generated? Shares of the classes, beside what a perfect generator would get by chance."""

from collections.abc import Sequence

import numpy as np

from sbm_jax.evaluation.estimates import DRAWS, Estimate, estimate

NUM_DRAWS = 4000
"""Simulated sets of samples of a perfect generator."""


def measure(
    repeats: Sequence[np.ndarray], num_classes: int, labels: np.ndarray | None
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return the share of each class, the smallest share, and the distance from the real shares.

    ``coverage/class_<k>`` is the share of class k in all modalities of all joint samples. ``coverage/min`` is the
    smallest of them, over the classes that real data have; its spread is that of this class's share.
    ``coverage/total_variation`` is half the sum of absolute differences from the shares of the labels, a sample that is
    not finite being of a class that real data lack.

    The minimum is biased downwards and the distance upwards, by what chance does to so many samples. What a perfect
    generator would get is beside them, as ``coverage/min_expected`` and ``coverage/total_variation_expected``. All
    modalities of a joint sample of a perfect generator show one class, so that joint samples count, not modalities.

    Args:
      repeats: classes seen in the joint samples of each repeat, int [B, M], `coherence.NO_CLASS` where not finite.
      num_classes: K.
      labels: int [N], those of the real data, or None.

    Returns:
      The estimates, and what is not available, with the reason.
    """
    shown = [(predicted[:, :, None] == np.arange(num_classes)).mean(axis=1) for predicted in repeats]  # [B, K]
    classes = [estimate([one[:, k] for one in shown]) for k in range(num_classes)]
    metrics = {f"coverage/class_{k}": share for k, share in enumerate(classes)}
    if labels is None:
        metrics["coverage/min"] = min(classes, key=lambda share: share.value)
        missing = ("min_expected", "total_variation", "total_variation_expected")
        return metrics, {f"coverage/{name}": "the data have no labels" for name in missing}
    real = real_shares(labels, num_classes)
    metrics["coverage/min"] = min((classes[k] for k in np.flatnonzero(real)), key=lambda share: share.value)
    shares = np.array([share.value for share in classes])
    distance = (np.abs(shares - real).sum() + 1.0 - shares.sum()) / 2
    metrics["coverage/total_variation"] = Estimate(float(distance), None, classes[0].n)
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
        f"coverage/{name}_expected": Estimate(float(values.mean()), float(values.std(ddof=1)), count, DRAWS)
        for name, values in found.items()
    }


def real_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of each class among labels [N]: [K]."""
    return np.bincount(labels, minlength=num_classes) / len(labels)


def of_real(labels: np.ndarray, num_classes: int) -> dict[str, Estimate]:
    """Return the share of each class among labels [N], by name with ``real``."""
    shares = real_shares(labels, num_classes)
    return {f"coverage/real/class_{k}": Estimate(float(share), None, len(labels)) for k, share in enumerate(shares)}
