"""Bring-your-own data: folders of images, sounds, texts and arrays, one file per row and modality.

    DIR/train/<modality>/<row>.png     .png, .jpg and .jpeg, .wav, .txt or .npy; `validation` is optional
    DIR/train/labels.csv               optional: a column `row`, and one per question, or `label` for a single one
    DIR/test/...

The files of a row share its name, up to the suffix. A row without a file for a modality lacks it; only training and
validation rows may. All files are read into memory: images as uint8 [H, W, C], with one channel for grey files and
three for others, WAV files as waveforms [T], texts as strings, and arrays as numbers of any shape. The modality's
format converts them to what networks see. For data larger than memory, write records (`data.write_records`).
"""

import collections
import csv
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import arrays, files, labels
from sbm_jax.data.loader import Loader
from sbm_jax.data.sound_files import read_wav
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.storage import DAMAGED_ARRAY

TABLE = "labels.csv"
ROW = "row"
"""The column of `TABLE` with the names of the rows."""

_LAYOUT = "train/<modality>/<row>.png (.jpg, .wav, .txt, .npy), the same in test, and optionally in validation"
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini")


@checked_dataclass
class FoldersConfig:
    """Your own folders.

    Attributes:
      directory: directory with one folder per split, each with one folder per modality; see `data.folders`.
      rate: sampling rate of all WAV files in Hz; 0 if there are none.
      validation_fraction: the share of training rows used for validation if there is no `validation` folder.
      seed: seed of that choice of rows.
    """

    directory: str = ""
    rate: int = 0
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, "data.folders.seed", self.seed, "0 or more")
        require(self.rate >= 0, "data.folders.rate", self.rate, "samples per second, or 0 without WAV files")
        inside = 0 < self.validation_fraction < 1
        require(inside, "data.folders.validation_fraction", self.validation_fraction, "a value in (0, 1)")


class _Folder(NamedTuple):
    """The files of one split.

    Attributes:
      path: folder of the split.
      files: {modality: {row: file}}.
      rows: the names of all rows, sorted.
    """

    path: pathlib.Path
    files: dict[str, dict[str, pathlib.Path]]
    rows: list[str]


def load_folders(config: FoldersConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set in a directory.

    Args:
      config: where it is.
      cache_dir: unused; the files are read as they are.
      names: names of the modalities; other folders are not read. None takes every folder of `train` as a modality.

    Raises:
      SbmError: if a folder is missing, a file is unreadable, of an unknown type or unlike the others, a row has two
        files of one modality or no label, or no training row has all modalities.
    """
    del cache_dir
    root = files.directory(config.directory, f"your data: {_LAYOUT}", "data.folders.directory")
    if names is None:
        names = sorted(path.name for path in _split_path(root, "train").iterdir() if _is_folder(path))
    paths = {name: root / name for name in types.Dataset._fields[:3]}
    if not paths["validation"].exists():
        del paths["validation"]
    folders = {name: _list(_split_path(root, name), names) for name in paths}
    _require_complete_row(folders["train"])
    tables = {name: path / TABLE for name, path in paths.items() if (path / TABLE).exists()}
    answers = _numbered({name: _answers(path, folders[name].rows) for name, path in tables.items()}, tables)
    splits = {name: _read(folder, answers.get(name, {}), config) for name, folder in folders.items()}
    for name, split in splits.items():
        _require_alike(paths[name], split, splits["train"])
    where = {name: path / TABLE for name, path in paths.items()}
    classes = labels.classes_of(splits, where)
    settings = {
        "digests": {name: _digests(folder) for name, folder in folders.items()},
        "tables": {name: files.content_digest([path]) for name, path in tables.items()},
    }
    if "validation" not in splits:
        fraction, seed = config.validation_fraction, config.seed
        splits["train"], splits["validation"] = arrays.divide(splits["train"], fraction, seed, str(paths["train"]))
        settings |= {"validation_fraction": fraction, "seed": seed}
    return labels.numbered(splits, classes, where["train"], settings)


# MARK: Names


def _split_path(root: pathlib.Path, name: str) -> pathlib.Path:
    path = root / name
    if not path.is_dir():
        raise SbmError(f"{path} is not a directory; expected {_LAYOUT}, in {root}. Put the data there.")
    return path


def _is_folder(path: pathlib.Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _list(path: pathlib.Path, names: Sequence[str]) -> _Folder:
    """List the files of a split."""
    there = [folder.name for folder in path.iterdir() if _is_folder(folder)]
    for name in names:
        if name not in there:
            raise unknown(f"modality in {path}:", name, there)
    found = {name: _files(path / name) for name in names}
    rows = sorted({row for own in found.values() for row in own})
    return _Folder(path, found, rows)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return {row: file} for one modality, all of the same type.

    Raises:
      SbmError: if files have unknown or different types, two belong to one row, or there are none.
    """
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _LEFT_BY_SYSTEMS:
            continue
        if path.suffix.lower() not in _READERS or not path.is_file():
            raise SbmError(f"{path} is not one of {', '.join(_READERS)}. Convert it, or leave it out.")
        if path.stem in found:
            raise SbmError(f"{found[path.stem]} and {path.name} share a row; expected one file. Leave one out.")
        found[path.stem] = path
    if not found:
        raise SbmError(f"{folder} has no files; expected <row>.png, .jpg, .wav, .txt or .npy. Add some.")
    kinds = {_READERS[path.suffix.lower()]: path for path in found.values()}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise SbmError(
            f"{first} and {second.name} are of different types; expected one type per folder. Separate them."
        )
    return found


def _require_complete_row(train: _Folder) -> None:
    """Check that some training row has every modality."""
    if not set.intersection(*({*own} for own in train.files.values())):
        raise SbmError(
            f"no row of {train.path} has a file in each of {', '.join(train.files)}; files of one row must share its "
            "name, up to the suffix. Rename them."
        )


def _digests(folder: _Folder) -> dict[str, str]:
    return {name: files.content_digest(own[row] for row in sorted(own)) for name, own in folder.files.items()}


# MARK: Labels


def _answers(path: pathlib.Path, rows: Sequence[str]) -> dict[str, list[str]]:
    """Return {question: answers as written, in the order of `rows`} from a table.

    Lines of other rows are ignored: their files belong to modalities that are not read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = [line for line in csv.reader(file, strict=True) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise SbmError(f"{path} cannot be read as a table: {error}. Write commas between values, in UTF-8.") from error
    if len(header) < 2 or header[0] != ROW or len({*header}) < len(header):
        raise SbmError(f"{path} has the columns {header}; expected {ROW!r}, and one column per question. Fix it.")
    found: dict[str, list[str]] = {}
    for line in lines:
        if len(line) != len(header) or line[0] in found or not all(line):
            raise SbmError(
                f"{path} has the line {line}; expected one line per row, with a value for each of {header}. Fix it."
            )
        found[line[0]] = line
    lacking = [row for row in rows if row not in found]
    if lacking:
        raise SbmError(f"{path} has no line for row {lacking[0]!r} ({len(lacking)} such rows). Add it.")
    return {question: [found[row][i] for row in rows] for i, question in enumerate(header) if i}


def _numbered(
    tables: Mapping[str, Mapping[str, Sequence[str]]], paths: Mapping[str, pathlib.Path]
) -> dict[str, dict[str, np.ndarray]]:
    """Return {split: {array of the question: integers [N]}}, with words replaced by their rank in sorted order."""
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in tables}
    for question in dict.fromkeys(question for table in tables.values() for question in table):
        column = {name: np.array(table[question]) for name, table in tables.items() if question in table}
        if all(map(_is_integer, itertools.chain(*column.values()))):
            numbers = {name: answers.astype(np.int64) for name, answers in column.items()}
        elif "train" in column:
            where = {name: f"{paths[name]}: column {question!r}" for name in column}
            numbers = labels.numbers_of_words(column, where)
        else:
            raise SbmError(
                f"{paths[next(iter(column))]} has the column {question!r}, which no training row has. Fix it."
            )
        for name, answers in numbers.items():
            found[name][labels.array_of(question)] = answers
    return found


def _is_integer(answer: str) -> bool:
    """Return whether an answer is an integer that int64 can hold."""
    return re.fullmatch(r"[+-]?\d{1,18}", answer.strip()) is not None


# MARK: Content


def _read(folder: _Folder, answers: Mapping[str, np.ndarray], config: FoldersConfig) -> types.Split:
    """Read the rows of a split."""
    found: dict[str, Any] = dict(answers)
    for name, own in folder.files.items():
        first = next(iter(own.values()))
        values = _READERS[first.suffix.lower()](list(own.values()), config)
        # Rows that lack the modality may hold any valid value: use the first file's.
        places = {row: place for place, row in enumerate(own)}
        found[name] = values[[places.get(row, 0) for row in folder.rows]]
        if len(own) < len(folder.rows):
            found[f"{name}.present"] = np.array([row in own for row in folder.rows])
    return arrays.as_split(found, str(folder.path))


def _require_alike(path: pathlib.Path, split: types.Split, train: types.Split) -> None:
    """Check that the files of a split match those for training."""
    for name, values in split.data.items():
        (shape, kind), (expected, trained) = ((v.shape[1:], v.dtype.kind) for v in (values, train.data[name]))
        if (shape, kind) != (expected, trained):
            raise SbmError(
                f"{path / name} has arrays {list(shape)} of dtype kind {kind!r}; expected {list(expected)} of "
                f"{trained!r}, as for training. Fix the files."
            )


def _read_images(paths: Sequence[pathlib.Path], config: FoldersConfig) -> np.ndarray:
    """Read images, uint8 [N, H, W, C], which must be all grey (C = 1) or all colour (C = 3)."""
    del config
    images = []
    for path in paths:
        if _has_16_bits(path):
            raise SbmError(f"{path} has 16 bits per channel; expected 8. Convert it, or store it as .npy.")
        image, mode = files.rgb_image(path, "Write it again as an opaque image of 8 bits per channel.")
        images.append(image[..., :1] if mode in ("1", "L", "LA") else image)
    return _stacked(images, paths)


def _has_16_bits(path: pathlib.Path) -> bool:
    """Return whether a file is a PNG image of 16 bits per channel, which Pillow may silently reduce to 8."""
    try:
        with path.open("rb") as file:
            start = file.read(25)
    except OSError as error:
        raise SbmError(f"{path} cannot be read: {error}. Fix the file or its permissions.") from error
    return start.startswith(b"\x89PNG") and start[24:] == b"\x10"


def _read_sounds(paths: Sequence[pathlib.Path], config: FoldersConfig) -> np.ndarray:
    """Read waveforms, float32 [N, T]."""
    if not config.rate:
        raise SbmError(
            f"data.folders.rate is 0, but there is {paths[0]}. Set it to the sampling rate of all sounds, in Hz."
        )
    return _stacked([read_wav(path, config.rate) for path in paths], paths)


def _read_texts(paths: Sequence[pathlib.Path], config: FoldersConfig) -> np.ndarray:
    """Read texts, strings [N], without the line break at the end of a file."""
    del config
    texts = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SbmError(f"{path} cannot be read as UTF-8 text: {error}. Write it again.") from error
        if "\0" in text:
            raise SbmError(f"{path} has the character NUL; expected plain text. Write it again.")
        texts.append(text)
    return np.array(texts)


def _read_arrays(paths: Sequence[pathlib.Path], config: FoldersConfig) -> np.ndarray:
    """Read arrays of numbers, [N, *shape]."""
    del config
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, *DAMAGED_ARRAY) as error:
            raise SbmError(f"{path} cannot be read: {error}. Write it again with numpy.save.") from error
        if values.dtype.kind not in "uifb" or not np.isfinite(values).all():
            raise SbmError(f"{path} is {values.dtype}, or has NaN or infinite values; expected finite numbers. Fix it.")
        found.append(values)
    return _stacked(found, paths)


def _stacked(found: Sequence[np.ndarray], paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Stack arrays of one shape and type, [N, *shape].

    Raises:
      SbmError: naming a file whose shape or type differs from most.
    """
    forms = [(values.shape, values.dtype.name) for values in found]
    shape, kind = collections.Counter(forms).most_common(1)[0][0]
    for path, form in zip(paths, forms, strict=True):
        if form != (shape, kind):
            raise SbmError(
                f"{path} is {form[1]} {list(form[0])}; expected {kind} {list(shape)}, like most files of "
                f"{path.parent}. Cut, pad, scale or convert it."
            )
    return np.stack(found)


_READERS: dict[str, Callable[[Sequence[pathlib.Path], FoldersConfig], np.ndarray]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg"), _read_images),
    ".wav": _read_sounds,
    ".txt": _read_texts,
    ".npy": _read_arrays,
}
"""The reader of each suffix."""


def read_file(path: pathlib.Path, rate: int = 0) -> Any:
    """Read one file as this module does: an image, a waveform, a text or an array of numbers.

    Args:
      path: path of the file; its suffix determines its type.
      rate: sampling rate of a WAV file in Hz.

    Raises:
      SbmError: if the type is unknown, or the file cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SbmError(f"{path} is not one of {', '.join(_READERS)}. Convert it.")
    return reader([path], FoldersConfig(rate=rate))[0]


DATASET = Loader(FoldersConfig, load_folders)
