"""Bring-your-own data: a directory of NumPy archives, one for each split."""

import dataclasses
import os
import pathlib
import struct
from typing import Any

import numpy as np

from sbm_jax import types
from sbm_jax.data import files
from sbm_jax.errors import SbmError
from sbm_jax.storage import DAMAGED_ARCHIVE

_LABEL = "label"
_PRESENT = ".present"
_LAYOUT = "train.npz, test.npz and optionally validation.npz, with one array [N, ...] for each modality"


@dataclasses.dataclass(frozen=True)
class ArraysConfig:
    """Arrays of one's own.

    Attributes:
      directory: of `train.npz`, `test.npz` and optionally `validation.npz`. Each has an array [N, ...] for
        every modality, under its name, and optionally integer labels [N] under `label`. uint8 stands for
        values in [0, 1]. Rows for training may lack modalities: `<modality>.present` is bool [N], False where the
        row has none, and its array has anything there that the modality may have, such as zeros.
      validation_fraction: the share of the training rows that becomes validation where there is no
        `validation.npz`.
      seed: of that choice of rows.
    """

    directory: str = ""
    validation_fraction: float = 0.1
    seed: int = 0


def load_arrays(config: ArraysConfig, cache_dir: pathlib.Path) -> types.Dataset:
    """Return the data set in a directory.

    Args:
      config: where it is.
      cache_dir: not needed: the arrays are read as they are.

    Raises:
      SbmError: if a file is missing or unreadable, or its arrays are not rows of finite numbers that fit
        together.
    """
    del cache_dir
    if not 0 < config.validation_fraction < 1:
        raise SbmError(f"data.arrays.validation_fraction is {config.validation_fraction}; expected a value in (0, 1).")
    root = files.directory(config.directory, f"your data: {_LAYOUT}", "data.arrays.directory")
    paths = {name: root / f"{name}.npz" for name in ("train", "validation", "test")}
    if not paths["validation"].exists():
        del paths["validation"]
    splits = {name: _read(path) for name, path in paths.items()}
    if splits["test"].present is not None and not all(mask.all() for mask in splits["test"].present.values()):
        raise SbmError(
            f"{paths['test']} lacks modalities of some rows; what is evaluated must have all. Leave them out."
        )
    for name, split in splits.items():
        _require_alike(paths[name], split, splits["train"])
    settings = {"digests": {name: _digest(path) for name, path in paths.items()}}
    if "validation" not in splits:
        splits["train"], splits["validation"] = _divide(splits["train"], config)
        settings |= {"validation_fraction": config.validation_fraction, "seed": config.seed}
    return types.Dataset(**splits, num_classes=_num_classes(splits.values()), settings=settings)


def _read(path: pathlib.Path) -> types.Split:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            _check_directory(path, len(archive.files))
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected {_LAYOUT}. Put it there.") from error
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(
            f"{path} can not be read: {error}. Expected an archive of plain arrays, without Python objects. "
            "Write it again with numpy.savez."
        ) from error
    labels = arrays.pop(_LABEL, None)
    masks = {name.removesuffix(_PRESENT): arrays.pop(name) for name in list(arrays) if name.endswith(_PRESENT)}
    if not arrays:
        raise SbmError(f"{path} has no modality; expected {_LAYOUT}. Write it again.")
    num_rows = len(next(iter(arrays.values()))) if next(iter(arrays.values())).ndim else 0
    data = {name: _checked(array, f"{path}: {name}", num_rows) for name, array in arrays.items()}
    labels = None if labels is None else _checked_labels(labels, f"{path}: {_LABEL}", num_rows)
    return types.Split(data, labels, _checked_masks(masks, data, str(path), num_rows) if masks else None)


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
    masks: dict[str, np.ndarray], data: dict[str, np.ndarray], where: str, num_rows: int
) -> dict[str, np.ndarray]:
    """Return {modality: bool [N]} of all modalities, present where nothing is said."""
    for name, mask in masks.items():
        if name not in data:
            raise SbmError(f"{where} has {name}{_PRESENT}, but no modality {name!r}. Add its array, or leave this out.")
        if mask.dtype != np.bool_ or mask.shape != (num_rows,):
            raise SbmError(
                f"{where}: {name}{_PRESENT} is {mask.dtype} {list(mask.shape)}; expected bool [{num_rows}]. Mend it."
            )
    present = {name: masks.get(name, np.ones(num_rows, bool)) for name in data}
    empty = np.flatnonzero(~np.any(list(present.values()), axis=0))
    if len(empty):
        raise SbmError(f"{where}: row {empty[0]} has no modality at all ({len(empty)} such rows). Leave them out.")
    return present


def _checked(array: np.ndarray, where: str, num_rows: int) -> np.ndarray:
    """Return the rows as uint8, int32 or float32."""
    if array.ndim == 0 or len(array) == 0 or len(array) != num_rows:
        raise SbmError(
            f"{where} has the shape {list(array.shape)}; expected rows along the first axis, at least one "
            f"and as many as the other arrays of that file ({num_rows}). Mend the array."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        return _as_int32(array, where)
    if array.dtype.kind not in "fb":
        raise SbmError(f"{where} has the type {array.dtype}; expected numbers: uint8, integers or floats. Convert it.")
    with np.errstate(over="ignore"):  # what float32 can not hold becomes infinite, and is refused
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        row = np.flatnonzero(~finite.reshape(num_rows, -1).all(axis=1))[0]
        raise SbmError(f"{where} has NaN or infinite values, first in row {row}; expected finite ones. Mend the data.")
    return array


def _checked_labels(labels: np.ndarray, where: str, num_rows: int) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.shape != (num_rows,) or labels.min() < 0:
        raise SbmError(
            f"{where} is {labels.dtype} {list(labels.shape)}; expected integers [{num_rows}], from 0. Mend "
            "the labels or leave them out."
        )
    return _as_int32(labels, where)


def _as_int32(array: np.ndarray, where: str) -> np.ndarray:
    narrow = array.astype(np.int32)
    if not np.array_equal(narrow, array):
        raise SbmError(f"{where} has integers that int32 can not hold; expected smaller ones. Number them anew.")
    return narrow


def _require_alike(path: pathlib.Path, split: types.Split, train: types.Split) -> None:
    """Check that a split has the same arrays as the training split, but for the number of rows."""
    expected, found = (
        {name: (array.shape[1:], array.dtype.name) for name, array in part.data.items()}
        | ({_LABEL: ((), "int32")} if part.labels is not None else {})
        for part in (train, split)
    )
    if found != expected:
        raise SbmError(f"{path} has {found}; expected the arrays of train.npz: {expected}. Write it again to match.")


def _divide(split: types.Split, config: ArraysConfig) -> tuple[types.Split, types.Split]:
    num_validation = max(1, round(config.validation_fraction * len(split)))
    if num_validation >= len(split):
        raise SbmError(
            f"train.npz has {len(split)} rows, too few to split validation off; expected 2 or more. Add "
            "rows, or a validation.npz."
        )
    rows = np.random.default_rng(config.seed).permutation(len(split))
    return _take(split, np.sort(rows[num_validation:])), _take(split, np.sort(rows[:num_validation]))


def _take(split: types.Split, rows: np.ndarray) -> types.Split:
    labels = None if split.labels is None else split.labels[rows]
    present = None if split.present is None else {name: mask[rows] for name, mask in split.present.items()}
    return types.Split({name: array[rows] for name, array in split.data.items()}, labels, present)


def _num_classes(splits: Any) -> int | None:
    labels = [split.labels for split in splits if split.labels is not None]
    return max(int(part.max()) for part in labels) + 1 if labels else None


def _digest(path: pathlib.Path) -> str:
    return files.content_digest([path])
