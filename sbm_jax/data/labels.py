"""Labels of rows: the answers to one question or several, and the classes that they number."""

import dataclasses
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sbm_jax import types
from sbm_jax.errors import SbmError
from sbm_jax.types import LABEL

logger = logging.getLogger(__name__)


def array_of(question: str) -> str:
    """Return the name of the array of an archive that has the answers to a question."""
    return LABEL if question == LABEL else f"{LABEL}.{question}"


def is_label(name: str) -> bool:
    """Return whether an array of an archive has the answers to a question."""
    return name == LABEL or name.startswith(f"{LABEL}.")


def numbers_of_words(answers: Mapping[str, np.ndarray], where: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return numbers in the place of words: their places among those of the training rows, in order.

    Args:
      answers: strings [N] of each split.
      where: they come from, for messages.

    Returns:
      int64 [N] of each split.

    Raises:
      SbmError: if a held-out row has a word that no training row has.
    """
    words = np.unique(answers["train"])
    for name, values in answers.items():
        unseen = np.setdiff1d(values, words)
        if len(unseen):
            raise SbmError(
                f"{where[name]} has {unseen[0].item()!r}, which no training row has. Leave these rows out, or add such "
                "rows to the training data."
            )
    return {name: np.searchsorted(words, values) for name, values in answers.items()}


def numbered(
    splits: Mapping[str, types.Split], classes: Mapping[str, np.ndarray], path: pathlib.Path, settings: dict[str, Any]
) -> types.Dataset:
    """Return the data set of three splits with their labels numbered from 0.

    Args:
      splits: by name, with labels as they are in the files.
      classes: the labels that occur, by question, from `classes_of`.
      path: of the labels of the training rows, for messages.
      settings: of the data set; classes that are not 0, 1, ... are added.

    Raises:
      SbmError: if the labels look like no classes.
    """
    for question, values in classes.items():
        check_classes(question, values, splits["train"].labels[question], path)
        if not np.array_equal(values, np.arange(len(values))):
            settings = settings | {array_of(question).replace(LABEL, "labels", 1): values.tolist()}
    renumbered = {name: _renumbered(split, classes) for name, split in splits.items()}
    num_classes = {question: len(values) for question, values in classes.items()}
    return types.Dataset(**renumbered, num_classes=num_classes, settings=settings)


def _renumbered(split: types.Split, classes: Mapping[str, np.ndarray]) -> types.Split:
    """Return a split with the numbers of the classes in place of the labels of the file."""
    labels = {
        question: np.searchsorted(values, split.labels[question]).astype(np.int32)
        for question, values in classes.items()
    }
    return dataclasses.replace(split, labels=labels)


def checked_labels(labels: np.ndarray, where: str, num_rows: int) -> np.ndarray:
    """Return the labels as int64."""
    if labels.dtype.kind not in "iub" or labels.shape != (num_rows,):
        raise SbmError(
            f"{where} is {labels.dtype} {list(labels.shape)}; expected integers [{num_rows}], the number of each row's "
            "class. Fix the labels or leave them out."
        )
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise SbmError(f"{where} has integers that int64 can not hold; expected numbers of classes. Renumber them.")
    return labels.astype(np.int64)


def classes_of(splits: Mapping[str, types.Split], paths: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Return the answers to each question that occur, in order.

    Args:
      splits: by name.
      paths: of the labels of each split, for messages.

    Raises:
      SbmError: if the splits do not answer the same questions, or see `_classes`.
    """
    questions = list(splits["train"].labels)
    for name, split in splits.items():
        if set(split.labels) != set(questions):
            raise SbmError(
                f"{paths[name]} has labels for {sorted(split.labels)}; expected those of the training rows: "
                f"{sorted(questions)}. Write it again to match."
            )
    return {question: _classes(question, splits, paths) for question in questions}


def _classes(question: str, splits: Mapping[str, types.Split], paths: Mapping[str, pathlib.Path]) -> np.ndarray:
    """Return the answers to a question that occur, in order.

    Args:
      question: what is asked.
      splits: by name.
      paths: of the labels of each split, for messages.

    Raises:
      SbmError: if the question has no plain name, or some answers occur outside the training rows only: no classifier
        that learns from these can tell them.
    """
    if not re.fullmatch(r"\w+", question):  # the name of a directory
        raise SbmError(
            f"{paths['train']}: the array {array_of(question)!r} has the answers to a question; expected its name in "
            "letters, digits and _. Rename it."
        )
    classes = np.unique(splits["train"].labels[question])
    for name, split in splits.items():
        unseen = np.setdiff1d(split.labels[question], classes)
        if len(unseen):
            raise SbmError(
                f"{paths[name]}: {array_of(question)} has values that no row of {paths['train'].name} has: "
                f"{_some(unseen)}. Leave these rows out, or add such rows to the training data."
            )
    return classes


def check_classes(question: str, classes: np.ndarray, labels: np.ndarray, path: pathlib.Path) -> None:
    """Check that there are fewer classes than rows to learn them from.

    Args:
      question: what the labels answer.
      classes: the labels that occur.
      labels: those of the training rows, without what was split off for validation.
      path: of the file they come from, for messages.

    Raises:
      SbmError: if there are not two training rows for each class.
    """
    name = array_of(question)
    if 2 * len(classes) > len(labels):
        raise SbmError(
            f"{path}: {name} has {len(classes):,} different values ({_some(classes)}) in {len(labels):,} training "
            "rows; these look like identifiers of rows, not classes. Expected two rows or more of a class on average. "
            f"Store the class of each row under {name!r}, or leave it out."
        )
    lost = np.setdiff1d(classes, labels)
    if len(lost):
        logger.warning(
            "%s: all rows with the label %s were split off for validation; no classifier learns them. Add rows, or "
            "a validation.npz.",
            path,
            _some(lost),
        )
    if len(classes) == 1 or classes[0] < 0:
        logger.warning(
            "%s: the labels are %s. A single class can not be missed, and a negative label is a class as any other; "
            "leave labels out where they mean nothing.",
            *(path, ", ".join(map(str, classes[:10]))),
        )


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:3])) + (", ..." if len(values) > 3 else "")
