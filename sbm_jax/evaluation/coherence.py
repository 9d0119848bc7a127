"""Do generated modalities show the same class, and the class that was given?

All functions take the classes that a classifier sees in each modality, `predicted` int [B, M]. `NO_CLASS`
stands for a sample that is not finite: it is never right, agrees with nothing and covers no mode.
"""

import numpy as np

from sbm_jax.errors import unknown

NO_CLASS = -1


def conditional(predicted: np.ndarray, labels: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return each row's share of unobserved modalities that show its label: [B], nan where all are observed.

    Args:
      predicted: int [B, M].
      labels: int [B], the classes of the given data.
      observed: bool [B, M] or [M], True = given.
    """
    free = np.broadcast_to(~observed, predicted.shape)
    correct = (predicted == labels[:, None]) & free
    count = free.sum(axis=1)
    return np.where(count > 0, correct.sum(axis=1) / np.maximum(count, 1), np.nan)


def conditional_per_modality(predicted: np.ndarray, labels: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the accuracy of each modality over the rows where it is unobserved: [M], nan where it never is.

    Args:
      predicted: int [B, M].
      labels: int [B], the classes of the given data.
      observed: bool [B, M] or [M], True = given.
    """
    free = np.broadcast_to(~observed, predicted.shape)
    correct = (predicted == labels[:, None]) & free
    count = free.sum(axis=0)
    return np.where(count > 0, correct.sum(axis=0) / np.maximum(count, 1), np.nan)


def _agree_with_first(predicted: np.ndarray) -> np.ndarray:
    shown = predicted != NO_CLASS
    return ((predicted == predicted[:, :1]) & shown).sum(axis=1)


def _agree_with_majority(predicted: np.ndarray) -> np.ndarray:
    shown = predicted != NO_CLASS
    same = (predicted[:, :, None] == predicted[:, None, :]) & shown[:, :, None]
    return same.sum(axis=1).max(axis=1)


RULES = {"first": _agree_with_first, "majority": _agree_with_majority}


def agreement(predicted: np.ndarray, rule: str = "first") -> np.ndarray:
    """Return how many of the M modalities agree, for each row: int [B].

    Args:
      predicted: int [B, M].
      rule: ``"first"`` counts the modalities that show the class of modality 0, itself included, as published
        baselines do; ``"majority"`` counts those that show the row's most frequent class.

    Raises:
      SbmError: when `rule` is unknown.
    """
    if rule not in RULES:
        raise unknown("agreement rule", rule, RULES)
    return RULES[rule](predicted)


def agreement_curve(predicted: np.ndarray, rule: str = "first") -> np.ndarray:
    """Return the fraction of rows in which at least k of M modalities agree, for k = 1..M: [M].

    Args:
      predicted: int [B, M].
      rule: see `agreement`.
    """
    sizes = np.arange(1, predicted.shape[1] + 1)
    return (agreement(predicted, rule)[:, None] >= sizes).mean(axis=0)


def mode_coverage(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the fraction of each modality's samples that show each class: [M, num_classes]."""
    return (predicted[:, :, None] == np.arange(num_classes)).mean(axis=0)
