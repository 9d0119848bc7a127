"""Data on disk: rows in ArrayRecord files, read one batch at a time.

`<split>.json` describes a split: the modalities in order, the files, the number of rows and a digest of all content. A
record is one row: the concatenated values of all modalities, as raw bytes. Labels and presence masks take a few bytes
per row; they are in `<split>.npz` and stay in memory. `write_records` writes these files.
"""

import dataclasses
import json
import pathlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from sbm_jax import types
from sbm_jax.config import build, checked_dataclass
from sbm_jax.data import arrays, files, labels
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, unknown
from sbm_jax.rows import Rows
from sbm_jax.storage import DAMAGED_ARCHIVE

LAYOUT = "train.json, validation.json and test.json and the files that they name, as write_records makes them"
_AGAIN = "Copy it again, or write the records again."

# MARK: The description of a split


@checked_dataclass
class Column:
    """A modality in records, with the statistics of its values that checks need.

    Attributes:
      name: name of the modality.
      dtype: ``"uint8"``, ``"int32"`` or ``"float32"``, little-endian.
      shape: shape of one row.
      low: smallest value.
      high: largest value.
      sums: smallest and largest nonzero sum along the last axis, of uint8 as value / 255; () if all sums are zero.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    sums: tuple[float, ...]

    @property
    def num_bytes(self) -> int:
        """The number of bytes of one row."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape))


def sum_range(values: np.ndarray) -> tuple[float, ...]:
    """Return the smallest and largest nonzero sum of values [..., C] along the last axis; see `Column.sums`."""
    sums = values.sum(axis=-1, dtype=np.float64) / (255.0 if values.dtype == np.uint8 else 1.0)
    sums = sums[sums != 0.0]
    return (float(sums.min()), float(sums.max())) if sums.size else ()


@checked_dataclass
class Shard:
    """A file of records.

    Attributes:
      file: name of the file.
      num_rows: number of records in it.
      num_bytes: size of the file in bytes.
    """

    file: str
    num_rows: int
    num_bytes: int


@checked_dataclass
class Description:
    """The content of `<split>.json`.

    Attributes:
      columns: the modalities, in record order.
      shards: the files, in row order.
      digest: digest of all rows, labels and presence masks.
      form: version of the file format.
    """

    columns: tuple[Column, ...]
    shards: tuple[Shard, ...]
    digest: str
    form: int

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
        return sum(shard.num_rows for shard in self.shards)


FORM = 1


def read_description(root: pathlib.Path, name: str) -> Description:
    """Read the description of a split.

    Raises:
      SbmError: if it is missing or damaged, or one of its files is missing or has another size.
    """
    path = root / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        description = build(Description, found, str(path))
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected {LAYOUT}. Put it there.") from error
    except (OSError, ValueError) as error:
        raise SbmError(f"{path} cannot be read: {error}. {_AGAIN}") from error
    if description.form != FORM or not description.columns or not description.num_rows:
        raise SbmError(f"{path} is not a description of rows in form {FORM}. Write the records again.")
    for shard in description.shards:
        file = root / shard.file
        size = file.stat().st_size if file.is_file() else None
        if size != shard.num_bytes:
            found = "does not exist" if size is None else f"has {size:,} bytes"
            raise SbmError(f"{file} {found}; {path.name} expects a file of {shard.num_bytes:,} bytes. {_AGAIN}")
    return description


# MARK: Reading


class Records(Mapping[str, "StoredColumn"]):
    """The modalities of a split on disk, {name: [N, *shape]}, read when indexed. Threads may share it."""

    def __init__(self, root: pathlib.Path, description: Description, names: Sequence[str]):
        """Open the files of a description in directory `root`, to read the modalities `names`."""
        self._root, self._shards = root, description.shards
        self._ends = np.cumsum([shard.num_rows for shard in description.shards])
        self._readers: list[ArrayRecordReader | None] = [None] * len(description.shards)
        self._lock = threading.Lock()
        offsets = np.cumsum([0, *(column.num_bytes for column in description.columns)])
        placed = {
            column.name: (column, int(start)) for column, start in zip(description.columns, offsets, strict=False)
        }
        self._columns = {name: placed[name] for name in names}
        self._row_bytes, self.num_rows = int(offsets[-1]), description.num_rows

    def __getitem__(self, name: str) -> "StoredColumn":
        return StoredColumn(self, self._columns[name][0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def take(self, names: Iterable[str], indices: np.ndarray) -> dict[str, np.ndarray]:
        """Read {name: [B, *shape]} at the given row indices, int [B].

        Raises:
          SbmError: naming the file, if it is damaged.
        """
        content = np.empty((len(indices), self._row_bytes), np.uint8)
        shards = np.searchsorted(self._ends, indices, side="right")
        for shard in np.unique(shards):
            where = np.flatnonzero(shards == shard)
            first = self._ends[shard] - self._shards[shard].num_rows
            content[where] = self._read(int(shard), indices[where] - first)
        result = {}
        for name in names:
            column, start = self._columns[name]
            values = np.ascontiguousarray(content[:, start : start + column.num_bytes])
            result[name] = values.view(np.dtype(column.dtype).newbyteorder("<")).reshape(-1, *column.shape)
        return result

    def _read(self, shard: int, positions: np.ndarray) -> np.ndarray:
        path = self._root / self._shards[shard].file
        try:
            with self._lock:
                if self._readers[shard] is None:
                    # Rows are read in random order, so reading ahead is useless.
                    options = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}
                    self._readers[shard] = ArrayRecordReader(str(path), **options)
            found = b"".join(self._readers[shard].read(positions.tolist()))
            return np.frombuffer(found, np.uint8).reshape(len(positions), self._row_bytes)
        except (RuntimeError, OSError, ValueError, IndexError) as error:
            raise SbmError(f"{path} cannot be read: {error}. {_AGAIN}") from error


@dataclasses.dataclass(frozen=True)
class StoredColumn:
    """A modality on disk that can be indexed like an array [N, *shape].

    Attributes:
      records: the records that hold it.
      column: its description.
    """

    records: Records
    column: Column

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape)."""
        return (len(self), *self.column.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of the values."""
        return np.dtype(self.column.dtype)

    def __len__(self) -> int:
        return self.records.num_rows

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        values = self.records.take((self.column.name,), np.atleast_1d(rows))[self.column.name]
        return values.reshape(*np.shape(rows), *self.column.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSplit(types.Split):
    """Rows of a data set on disk, with labels and presence masks in memory.

    Attributes:
      data: {modality: [N, *shape]}, read when indexed; `data.take` reads several modalities at once.
      clip: {modality: (low, high)}, bounds to clip values to that exceed them by rounding errors.
      ids: modalities whose integers are ids; all other integers become floats.
    """

    data: Records
    clip: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    ids: Collection[str] = frozenset()

    def read(self, names: Iterable[str], indices: np.ndarray) -> dict[str, np.ndarray]:
        """Read {modality: [B, *shape]} at the given row indices, int [B]."""
        values = self.data.take(names, indices)
        for name, rows in values.items():
            if name in self.ids:
                rows = rows.astype(np.int32, copy=False)
            elif rows.dtype == np.int32:
                rows = rows.astype(np.float32)
            values[name] = rows
            if name in self.clip:
                values[name] = np.clip(rows, *self.clip[name]).astype(rows.dtype, copy=False)
        return values

    def rows(self, names: Sequence[str], **beside: Any) -> Rows:
        """Return the rows that a training stage reads from disk; see `types.Split.rows`."""
        return RecordRows(self, tuple(names), self.beside(names, beside))


@dataclasses.dataclass(frozen=True, eq=False)
class RecordRows(Rows):
    """The rows that a training stage reads from records.

    Attributes:
      split: the rows.
      names: names of the modalities to read.
      beside: pytree of additional arrays [N, ...] in memory.
    """

    split: RecordSplit
    names: tuple[str, ...]
    beside: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.split)

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        """Return ``data``, {modality: [B, *shape]}, and the arrays of `beside`, at row indices int [B]."""
        beside = jax.tree.map(lambda array: array[indices], dict(self.beside))
        return {"data": self.split.read(self.names, indices), **beside}


# MARK: Loading


@checked_dataclass
class RecordsConfig:
    """Data on disk.

    Attributes:
      directory: directory of `train.json`, `validation.json`, `test.json`, and the files that they name.
    """

    directory: str = ""


def load_records(config: RecordsConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set in a directory; its rows stay on disk.

    Args:
      config: where it is.
      cache_dir: unused; the records are read where they are.
      names: names of the modalities to read; None for all.

    Raises:
      SbmError: if a file is missing or damaged, or the splits do not match.
    """
    del cache_dir
    root = files.directory(config.directory, f"your records: {LAYOUT}", "data.records.directory")
    splits, layouts, digests = {}, {}, {}
    for name in ("train", "validation", "test"):
        description = read_description(root, name)
        splits[name], digests[name] = _split(root, name, description, names), description.digest
        layouts[name] = {column.name: (column.shape, column.dtype) for column in description.columns}
        if layouts[name] != layouts["train"]:
            raise SbmError(
                f"{root / name}.json has {layouts[name]}; expected the modalities of train.json: {layouts['train']}. "
                "Write it again to match."
            )
    paths = {name: root / f"{name}.npz" for name in splits}
    classes = labels.classes_of(splits, paths)
    return labels.numbered(splits, classes, paths["train"], {"digests": digests})


def _split(root: pathlib.Path, name: str, description: Description, names: Sequence[str] | None) -> RecordSplit:
    known = [column.name for column in description.columns]
    for wanted in names or ():
        if wanted not in known:
            raise unknown(f"modality in {root / name}.json:", wanted, known)
    data, path = Records(root, description, names or known), root / f"{name}.npz"
    unread = set(known) - set(data)
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            small = {key: archive[key] for key in archive.files if key.removesuffix(".present") not in unread}
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"{path} cannot be read: {error}. {_AGAIN}") from error
    answers, present = arrays.labels_and_masks(small, data, str(path), description.num_rows)
    return RecordSplit(data, answers, present)


DATASET = Loader(RecordsConfig, load_records)
