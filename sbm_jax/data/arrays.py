"""Bring-your-own data: a directory of NumPy archives, one per split."""

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
    """Your own arrays.

    Attributes:
      directory: directory of `train.npz`, `test.npz` and optionally `validation.npz`. Each has an array [N, ...] for
        every modality, under its name, and optionally integer labels [N] under `label`, whose distinct values, in
        increasing order, are the classes 0, 1, ... Rows may have several labels, each the answer to one question,
        under `label.<question>`. Other arrays are ignored. uint8 stands for value / 255.
        Training rows may lack modalities: `<modality>.present` is bool [N], False where a row lacks the modality; the
        array may hold any valid values there, such as zeros.
      validation_fraction: the share of training rows used for validation if there is no `validation.npz`.
      seed: seed of that choice of rows.
    """

    directory: str = ""
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, "data.arrays.seed", self.seed, "0 or more")


def load_arrays(config: ArraysConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set in a directory.

    Args:
      config: where it is.
      cache_dir: unused; the arrays are read as they are.
      names: names of the modalities; other arrays are not read. None takes every array as a modality.

    Raises:
      SbmError: if a file is missing or unreadable, its arrays are not matching rows of finite numbers, or its labels
        are not classes.
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
    """Return the rows of a file, with labels as stored, and the names of the unused arrays."""
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
            f"{path} cannot be read: {error}. Expected an archive of plain arrays, without Python objects. "
            "Write it again with numpy.savez."
        ) from error
    return as_split(arrays, str(path)), unused


def as_split(arrays: Mapping[str, np.ndarray], where: str) -> types.Split:
    """Return the arrays of an archive as a split, with labels as stored.

    Args:
      arrays: {modality: real numbers [N, *shape]}, labels and presence masks; see `ArraysConfig`.
      where: source of the arrays, for messages.

    Raises:
      SbmError: if they are not matching rows of finite numbers.
    """
    lengths = collections.Counter(len(array) for array in arrays.values() if array.ndim)
    num_rows = lengths.most_common(1)[0][0] if lengths else 0  # the most common length: an outlier is at fault
    names = [name for name in arrays if labels.is_label(name) or name.endswith(_PRESENT)]
    small = {name: arrays[name] for name in names}
    data = {name: _checked(array, f"{where}: {name}", num_rows) for name, array in arrays.items() if name not in small}
    if not data:
        raise SbmError(f"{where} has no modality; expected one array [N, ...] for each. Write it again.")
    return types.Split(data, *labels_and_masks(small, data, where, num_rows))


def labels_and_masks(
    arrays: Mapping[str, np.ndarray], modalities: Collection[str], where: str, num_rows: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Return the labels as stored, by question, and {modality: bool [N]}, None without presence masks.

    Args:
      arrays: labels and presence masks, named as in an archive.
      modalities: names of the modalities.
      where: source of the arrays, for messages.
      num_rows: N.

    Raises:
      SbmError: if they do not match the rows.
    """
    masks = {name.removesuffix(_PRESENT): array for name, array in arrays.items() if name.endswith(_PRESENT)}
    answers = {
        name.removeprefix(f"{types.LABEL}."): labels.checked_labels(array, f"{where}: {name}", num_rows)
        for name, array in arrays.items()
        if not name.endswith(_PRESENT)
    }
    return answers, _checked_masks(masks, modalities, where, num_rows) if masks else None


def small_arrays(split: types.Split) -> dict[str, np.ndarray]:
    """Return labels and presence masks, named as in an archive; the inverse of `labels_and_masks`."""
    answers = {labels.array_of(question): values for question, values in split.labels.items()}
    return answers | {f"{name}{_PRESENT}": mask for name, mask in (split.present or {}).items()}


def _used(found: Sequence[str], names: Sequence[str] | None, path: pathlib.Path) -> list[str]:
    """Return the names of a file's arrays that are read, in file order.

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
    return [name for name in found if name in used | stray]  # stray masks are refused later


def _tell_unused(unused: Mapping[str, tuple[str, ...]], has_labels: bool) -> None:
    """Warn of unused arrays, and of those that may be labels."""
    for names in dict.fromkeys(names for names in unused.values() if names):
        where = " and ".join(file for file, found in unused.items() if found == names)
        like = [name for name in names if name.lower() in _LIKE_LABEL] if not has_labels else []
        hint = f" Labels are read from {types.LABEL!r}: rename {like[0]!r}, if it has them." if like else ""
        logger.warning("%s: not used, because no modality has these names: %s.%s", where, ", ".join(names), hint)


_END = struct.Struct("<4s4H2LH")
"""End record of a zip archive: signature, disk and member counts, size and offset of the directory, comment size."""


def _check_directory(path: pathlib.Path, num_members: int) -> None:
    """Check that an archive's list of members is complete; if its size is damaged, the first members would be lost.

    Archives with a comment or larger than 4 GB end differently and are not checked.

    Raises:
      ValueError: if it is not complete.
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
    """Return {modality: bool [N]} for all modalities; those without a mask are present in all rows."""
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
    with np.errstate(over="ignore"):  # overflow becomes infinite, and is refused below
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        row = np.flatnonzero(~finite.reshape(num_rows, -1).all(axis=1))[0]
        raise SbmError(f"{where} has NaN or infinite values, first in row {row}; expected finite values. Fix the data.")
    return array


def _as_int32(array: np.ndarray, where: str) -> np.ndarray:
    narrow = array.astype(np.int32)
    if not np.array_equal(narrow, array):
        raise SbmError(f"{where} has integers that int32 cannot hold; expected smaller ones. Renumber them.")
    return narrow


def _require_alike(path: pathlib.Path, split: types.Split, train: types.Split) -> None:
    """Check that the arrays of a split match the training split's, up to the number of rows."""
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
    """Split a random share off the training rows for validation, and return both.

    Args:
      split: the training rows.
      fraction: the share for validation.
      seed: seed of the choice.
      where: source of the rows, for messages.

    Raises:
      SbmError: if no row is left for training.
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
