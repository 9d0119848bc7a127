"""Bring-your-own data: a directory of NumPy archives, one for each split."""

import collections
import logging
import os
import pathlib
import struct
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files, labels
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.storage import DAMAGED_ARCHIVE

logger = logging.getLogger(__name__)

_LIKE_LABEL = ("label", "labels", "y", "target", "targets", "class", "classes", "digit", "digits")
_PRESENT = ".present"
_LAYOUT = "train.npz, test.npz and optionally validation.npz, with one array [N, ...] for each modality"


@checked_dataclass
class ArraysConfig:
    """Arrays of one's own.

    Attributes:
      directory: of `train.npz`, `test.npz` and optionally `validation.npz`. Each has an array [N, ...] for
        every modality, under its name, and optionally integer labels [N] under `label`, of which the different
        values, in their order, are the classes 0, 1, ... Where rows have several labels, each answers a question of
        its own, under `label.<question>`. Other arrays are not used. uint8 stands for values in [0, 1].
        Rows for training may lack modalities: `<modality>.present` is bool [N], False where the
        row has none, and its array has anything there that the modality may have, such as zeros.
      validation_fraction: the share of the training rows that becomes validation where there is no
        `validation.npz`.
      seed: of that choice of rows.
    """

    directory: str = ""
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, "data.arrays.seed", self.seed, "0 or more")


def load_arrays(config: ArraysConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Return the data set in a directory.

    Args:
      config: where it is.
      cache_dir: not needed: the arrays are read as they are.
      names: of the modalities; what else is in the files is not read. None takes every array for one.

    Raises:
      SbmError: if a file is missing or unreadable, or its arrays are not rows of finite numbers that fit
        together, or its labels are no classes.
    """
    del cache_dir
    if not 0 < config.validation_fraction < 1:
        raise SbmError(f"data.arrays.validation_fraction is {config.validation_fraction}; expected a value in (0, 1).")
    root = files.directory(config.directory, f"your data: {_LAYOUT}", "data.arrays.directory")
    paths = {name: root / f"{name}.npz" for name in ("train", "validation", "test")}
    if not paths["validation"].exists():
        del paths["validation"]
    splits, unused = {}, {}
    for name, path in paths.items():
        splits[name], unused[path.name] = _read(path, names)
    _tell_unused(unused, bool(splits["train"].labels))
    for name, split in splits.items():
        _require_alike(paths[name], split, splits["train"])
    classes = labels.classes_of(splits, paths)
    settings = {"digests": {name: _digest(path) for name, path in paths.items()}}
    if "validation" not in splits:
        splits["train"], splits["validation"] = divide(
            splits["train"], config.validation_fraction, config.seed, str(paths["train"])
        )
        settings |= {"validation_fraction": config.validation_fraction, "seed": config.seed}
    return labels.numbered(splits, classes, paths["train"], settings)


def _read(path: pathlib.Path, names: Sequence[str] | None) -> tuple[types.Split, tuple[str, ...]]:
    """Return the rows of a file, with labels as they are in it, and the names of the arrays that are not used."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            _check_directory(path, len(archive.files))
            used = _used(archive.files, names, path)
            arrays = {name: archive[name] for name in used}
            unused = tuple(name for name in archive.files if name not in used)
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected {_LAYOUT}. Put it there.") from error
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(
            f"{path} can not be read: {error}. Expected an archive of plain arrays, without Python objects. "
            "Write it again with numpy.savez."
        ) from error
    return as_split(arrays, str(path)), unused


def as_split(arrays: Mapping[str, np.ndarray], where: str) -> types.Split:
    """Return rows under the names that they have in an archive, with labels as they are.

    Args:
      arrays: {modality: real numbers [N, *shape]}, labels and masks of what is present; see `ArraysConfig`.
      where: they come from, for messages.

    Raises:
      SbmError: if they are not rows of finite numbers that fit together.
    """
    lengths = collections.Counter(len(array) for array in arrays.values() if array.ndim)
    num_rows = lengths.most_common(1)[0][0] if lengths else 0  # one array of another length is the wrong one
    names = [name for name in arrays if labels.is_label(name) or name.endswith(_PRESENT)]
    small = {name: arrays[name] for name in names}
    data = {name: _checked(array, f"{where}: {name}", num_rows) for name, array in arrays.items() if name not in small}
    if not data:
        raise SbmError(f"{where} has no modality; expected one array [N, ...] for each. Write it again.")
    return types.Split(data, *labels_and_masks(small, data, where, num_rows))


def labels_and_masks(
    arrays: Mapping[str, np.ndarray], modalities: Collection[str], where: str, num_rows: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Return the labels as they are, by question, and {modality: bool [N]} where some are said to be missing.

    Args:
      arrays: labels and masks under their names in an archive.
      modalities: the names of those that there are.
      where: they come from, for messages.
      num_rows: N.

    Raises:
      SbmError: if they do not fit the rows.
    """
    masks = {name.removesuffix(_PRESENT): array for name, array in arrays.items() if name.endswith(_PRESENT)}
    answers = {
        name.removeprefix(f"{types.LABEL}."): labels.checked_labels(array, f"{where}: {name}", num_rows)
        for name, array in arrays.items()
        if not name.endswith(_PRESENT)
    }
    return answers, _checked_masks(masks, modalities, where, num_rows) if masks else None


def small_arrays(split: types.Split) -> dict[str, np.ndarray]:
    """Return labels and masks under the names that they have in an archive; the inverse of `labels_and_masks`."""
    answers = {labels.array_of(question): values for question, values in split.labels.items()}
    return answers | {f"{name}{_PRESENT}": mask for name, mask in (split.present or {}).items()}


def _used(found: Sequence[str], names: Sequence[str] | None, path: pathlib.Path) -> list[str]:
    """Return which of the arrays of a file are read, in the file's order.

    Raises:
      SbmError: if a modality is missing.
    """
    if names is None:
        return list(found)
    for name in names:
        if name not in found:
            raise unknown(f"modality in {path}:", name, found)
    used = {*filter(labels.is_label, found), *names, *(f"{name}{_PRESENT}" for name in names)}
    stray = {name for name in found if name.endswith(_PRESENT) and name.removesuffix(_PRESENT) not in found}
    return [name for name in found if name in used | stray]  # what is stray is refused later


def _tell_unused(unused: Mapping[str, tuple[str, ...]], has_labels: bool) -> None:
    """Say which arrays are not used, and which of them may be the labels."""
    for names in dict.fromkeys(names for names in unused.values() if names):
        where = " and ".join(file for file, found in unused.items() if found == names)
        like = [name for name in names if name.lower() in _LIKE_LABEL] if not has_labels else []
        hint = f" Labels are read from {types.LABEL!r}: rename {like[0]!r}, if it has them." if like else ""
        logger.warning("%s: not used, because no modality has these names: %s.%s", where, ", ".join(names), hint)


_END = struct.Struct("<4s4H2LH")
"""The end of a zip archive: signature, disks, numbers of members, size and offset of their list, size of a comment."""


def _check_directory(path: pathlib.Path, num_members: int) -> None:
    """Check that an archive's list of members is whole: where its size is damaged, the first of them would be lost.

    Raises:
      ValueError: if it is not. Archives with a comment, or of more than 4 GB, end otherwise and are not checked.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size))
        tail = file.read()
    if len(tail) < _END.size or not tail.startswith(b"PK\5\6"):
        return
    _, _, _, _, number, length, offset, comment = _END.unpack(tail)
    if max(length, offset) < 2**32 - 1 and (number, offset + length + _END.size) != (num_members, size - comment):
        raise ValueError("its list of members is damaged")


def _checked_masks(
    masks: dict[str, np.ndarray], data: Collection[str], where: str, num_rows: int
) -> dict[str, np.ndarray]:
    """Return {modality: bool [N]} of all modalities, present where nothing is said."""
    for name, mask in masks.items():
        if name not in data:
            raise SbmError(f"{where} has {name}{_PRESENT}, but no modality {name!r}. Add its array, or leave this out.")
        if mask.dtype != np.bool_ or mask.shape != (num_rows,):
            raise SbmError(
                f"{where}: {name}{_PRESENT} is {mask.dtype} {list(mask.shape)}; expected bool [{num_rows}]. Fix it."
            )
    present = {name: masks.get(name, np.ones(num_rows, bool)) for name in data}
    empty = np.flatnonzero(~np.any(list(present.values()), axis=0))
    if len(empty):
        raise SbmError(f"{where}: row {empty[0]} has no modality at all ({len(empty)} such rows). Leave them out.")
    return present


def _checked(array: np.ndarray, where: str, num_rows: int) -> np.ndarray:
    """Return the rows as uint8, int32, float32 or strings."""
    if array.ndim == 0 or len(array) == 0 or len(array) != num_rows:
        raise SbmError(
            f"{where} has the shape {list(array.shape)}; expected rows along the first axis, at least one "
            f"and as many as the other arrays of that file ({num_rows}). Fix the array."
        )
    if array.dtype == np.uint8 or array.dtype.kind == "U":
        return array
    if array.dtype.kind in "iu":
        return _as_int32(array, where)
    if array.dtype.kind not in "fb":
        raise SbmError(f"{where} has the type {array.dtype}; expected numbers or strings. Convert it.")
    with np.errstate(over="ignore"):  # what float32 can not hold becomes infinite, and is refused
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        row = np.flatnonzero(~finite.reshape(num_rows, -1).all(axis=1))[0]
        raise SbmError(f"{where} has NaN or infinite values, first in row {row}; expected finite ones. Fix the data.")
    return array


def _as_int32(array: np.ndarray, where: str) -> np.ndarray:
    narrow = array.astype(np.int32)
    if not np.array_equal(narrow, array):
        raise SbmError(f"{where} has integers that int32 can not hold; expected smaller ones. Renumber them.")
    return narrow


def _require_alike(path: pathlib.Path, split: types.Split, train: types.Split) -> None:
    """Check that a split has the same arrays as the training split, but for the number of rows."""
    expected, found = (
        {name: (array.shape[1:], _type_of(array)) for name, array in part.data.items()}
        | {labels.array_of(question): ((), "int32") for question in part.labels}
        for part in (train, split)
    )
    if found != expected:
        raise SbmError(f"{path} has {found}; expected the arrays of train.npz: {expected}. Write it again to match.")


def _type_of(array: np.ndarray) -> str:
    return "str" if array.dtype.kind == "U" else array.dtype.name


def divide(split: types.Split, fraction: float, seed: int, where: str) -> tuple[types.Split, types.Split]:
    """Return training rows without a random share of them, and that share, for validation.

    Args:
      split: the rows.
      fraction: how many are for validation, of all.
      seed: of the choice.
      where: they come from, for messages.

    Raises:
      SbmError: if none is left for training.
    """
    num_validation = max(1, round(fraction * len(split)))
    if num_validation >= len(split):
        raise SbmError(
            f"{where} has {len(split)} rows, too few to split validation off; expected 2 or more. Add rows, or "
            "validation data."
        )
    rows = np.random.default_rng(seed).permutation(len(split))
    return split.take(np.sort(rows[num_validation:])), split.take(np.sort(rows[:num_validation]))


def _digest(path: pathlib.Path) -> str:
    return files.content_digest([path])


DATASET = Loader(ArraysConfig, load_arrays)
