"""Labels of rows: the answers to one or more questions, and their classes."""

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
    """Return the name of an archive's array of answers to a question."""
    return LABEL if question == LABEL else f"{LABEL}.{question}"


def is_label(name: str) -> bool:
    """Return whether an archive's array of this name holds the answers to a question."""
    return name == LABEL or name.startswith(f"{LABEL}.")


def numbers_of_words(answers: Mapping[str, np.ndarray], where: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Replace words with their ranks among the sorted words of the training rows.

    Args:
      answers: {split: strings [N]}.
      where: {split: source of the answers}, for messages.

    Returns:
      {split: int64 [N]}.

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
    """Return the data set of three splits, with their labels numbered from 0.

    Args:
      splits: {name: split}, with labels as stored.
      classes: {question: labels that occur}, from `classes_of`.
      path: file of the training rows' labels, for messages.
      settings: settings of the data set; classes other than 0, 1, ... are added to them.

    Raises:
      SbmError: if the labels do not look like classes.
    """
    for question, values in classes.items():
        check_classes(question, values, splits["train"].labels[question], path)
        if not np.array_equal(values, np.arange(len(values))):
            settings = settings | {array_of(question).replace(LABEL, "labels", 1): values.tolist()}
    renumbered = {name: _renumbered(split, classes) for name, split in splits.items()}
    num_classes = {question: len(values) for question, values in classes.items()}
    return types.Dataset(**renumbered, num_classes=num_classes, settings=settings)


def _renumbered(split: types.Split, classes: Mapping[str, np.ndarray]) -> types.Split:
    """Return a split with its labels replaced by class indices, int32 [N]."""
    labels = {
        question: np.searchsorted(values, split.labels[question]).astype(np.int32)
        for question, values in classes.items()
    }
    return dataclasses.replace(split, labels=labels)


def checked_labels(labels: np.ndarray, where: str, num_rows: int) -> np.ndarray:
    """Check labels and return them as int64 [N].

    Raises:
      SbmError: if they are not one integer per row, or int64 cannot hold them.
    """
    if labels.dtype.kind not in "iub" or labels.shape != (num_rows,):
        raise SbmError(
            f"{where} is {labels.dtype} {list(labels.shape)}; expected integers [{num_rows}], the class of each row. "
            "Fix the labels or leave them out."
        )
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise SbmError(f"{where} has integers that int64 cannot hold; expected classes numbered from 0. Renumber them.")
    return labels.astype(np.int64)


def classes_of(splits: Mapping[str, types.Split], paths: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Return {question: the distinct answers, sorted}.

    Args:
      splits: {name: split}.
      paths: {name: file of the split's labels}, for messages.

    Raises:
      SbmError: if the splits do not answer the same questions; also see `_classes`.
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
    """Return the distinct answers to a question, sorted.

    Args:
      question: name of the question.
      splits: {name: split}.
      paths: {name: file of the split's labels}, for messages.

    Raises:
      SbmError: if the question's name has other characters than letters, digits and _, or an answer does not occur in
        the training rows, so that no classifier can learn it.
    """
    if not re.fullmatch(r"\w+", question):  # it names a directory
        raise SbmError(
            f"{paths['train']}: the array {array_of(question)!r} holds the answers to a question; expected a name of "
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
    """Check that there are enough rows to learn the classes from, and warn of doubtful labels.

    Args:
      question: name of the question.
      classes: the distinct labels, sorted.
      labels: labels of the training rows, without those split off for validation.
      path: file of the labels, for messages.

    Raises:
      SbmError: if there are fewer than two training rows per class on average.
    """
    name = array_of(question)
    if 2 * len(classes) > len(labels):
        raise SbmError(
            f"{path}: {name} has {len(classes):,} different values ({_some(classes)}) in {len(labels):,} training "
            "rows; these look like row identifiers, not classes. Expected at least two rows per class on average. "
            f"Store the class of each row under {name!r}, or leave it out."
        )
    lost = np.setdiff1d(classes, labels)
    if len(lost):
        logger.warning(
            "%s: all rows with the label %s were split off for validation, so no classifier can learn it. Add rows, "
            "or a validation.npz.",
            path,
            _some(lost),
        )
    if len(classes) == 1 or classes[0] < 0:
        logger.warning(
            "%s: the labels are %s. A single class makes every prediction right, and negative labels count as classes "
            "too; leave out labels that are meaningless.",
            *(path, ", ".join(map(str, classes[:10]))),
        )


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:3])) + (", ..." if len(values) > 3 else "")
