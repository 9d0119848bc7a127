"""Converts arrays to data on disk, a chunk at a time: `python -m sbm_jax.data.write_records ARRAYS RECORDS`.

ARRAYS has the directories `train`, `validation` and `test`, each with a file `<array>.npy` for every array of an
archive of the data set ``arrays``: one per modality, `label.npy`, `photo.present.npy`... (An `.npz` archive is a zip
file of .npy files: `unzip train.npz -d ARRAYS/train`.) RECORDS is the directory to write.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from sbm_jax import types
from sbm_jax.config import plain
from sbm_jax.data import arrays, files
from sbm_jax.data.records import FORM, Column, Description, Shard, sum_range
from sbm_jax.errors import SbmError
from sbm_jax.progress import progress_bar
from sbm_jax.storage import DAMAGED_ARCHIVE, user_path, write_atomically

SHARD_BYTES = 2**30
"""Bytes of rows per file."""

_WRITER = "group_size:1"  # so that single rows can be read


def write_records(directory: pathlib.Path, name: str, chunks: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write one split of a data set to disk, holding only one chunk of it in memory.

    The description is written last, so an interrupted write leaves no valid split.

    Args:
      directory: directory of the data set; created if it does not exist.
      name: ``"train"``, ``"validation"`` or ``"test"``.
      chunks: the rows in order, [n, ...] at a time, named as in an archive of the data set ``arrays``:
        {modality: real numbers [n, *shape], "label": integers [n], "<modality>.present": bool [n]}.

    Raises:
      SbmError: if the split exists or cannot be written, or its arrays are not matching rows of finite numbers.
    """
    directory = pathlib.Path(directory)
    path = directory / f"{name}.json"
    if path.exists():
        raise SbmError(f"{path} exists; expected none. Remove the records there, or choose another directory.")
    splits = (_numbers(arrays.as_split(chunk, f"part {i} of {name}")) for i, chunk in enumerate(chunks))
    first = next(splits, None)
    if first is None:
        raise SbmError(f"there are no rows for {path}; expected one or more. Give some.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_Writer(directory, name, first)) as writer:
            for split in itertools.chain([first], splits):
                writer.write(split)
        small = writer.small()
        buffer = io.BytesIO()
        np.savez(buffer, **small)
        write_atomically(directory / f"{name}.npz", buffer.getvalue())
        write_atomically(path, json.dumps(plain(writer.description(small)), indent=1))
    except (OSError, RuntimeError) as error:
        raise SbmError(
            f"the records cannot be written to {directory}: {error}. Fix its permissions, or free space there."
        ) from error


class _Writer:
    """Writes the files of one split."""

    def __init__(self, directory: pathlib.Path, name: str, first: types.Split):
        self._directory, self._name = directory, name
        self._layout = _layout(first)
        self._shards: list[tuple[pathlib.Path, int]] = []
        self._file: ArrayRecordWriter | None = None
        self._ranges = dict.fromkeys(first.data, (np.inf, -np.inf, ()))
        self._small: list[tuple[int, dict[str, np.ndarray]]] = []
        self._digest = hashlib.sha256(json.dumps(plain(self._layout)).encode())

    def write(self, split: types.Split) -> None:
        """Add rows."""
        if _layout(split) != self._layout:
            raise SbmError(
                f"rows of {self._name} are {_layout(split)}; expected all to match the first: {self._layout}. Fix them."
            )
        for name, values in split.data.items():
            low, high, sums = self._ranges[name]
            sums = (*sums, *sum_range(values))
            sums = (min(sums), max(sums)) if sums else ()
            self._ranges[name] = min(low, values.min().item()), max(high, values.max().item()), sums
        self._small.append((len(split), arrays.small_arrays(split)))
        rows = [np.ascontiguousarray(values).reshape(len(split), -1).view(np.uint8) for values in split.data.values()]
        content = np.concatenate(rows, axis=1)
        self._digest.update(content)
        for row in content:
            self._next_file(len(row))
            self._file.write(row.tobytes())

    def _next_file(self, row_bytes: int) -> None:
        """Count a row, starting a new file if the last one is full."""
        if self._file is None or self._shards[-1][1] * row_bytes >= SHARD_BYTES:
            self.close()
            path = self._directory / f"{self._name}-{len(self._shards):05d}.array_record"
            self._file = ArrayRecordWriter(str(path), _WRITER)
            self._shards.append((path, 0))
        path, num_rows = self._shards[-1]
        self._shards[-1] = path, num_rows + 1

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def small(self) -> dict[str, np.ndarray]:
        """Return labels, and presence masks of modalities that some rows lack, named as in an archive."""
        names = dict.fromkeys(name for _, small in self._small for name in small)
        kept = {
            name: np.concatenate([small.get(name, np.ones(num_rows, bool)) for num_rows, small in self._small])
            for name in names
        }
        return {name: array for name, array in kept.items() if not name.endswith(".present") or not array.all()}

    def description(self, small: Mapping[str, np.ndarray]) -> Description:
        """Return the description of all files, once they are closed."""
        for name in sorted(small):
            self._digest.update(name.encode() + b"\0" + small[name].tobytes())
        columns = [Column(name, *self._layout[name], *values) for name, values in self._ranges.items()]
        shards = [Shard(path.name, num_rows, path.stat().st_size) for path, num_rows in self._shards]
        return Description(tuple(columns), tuple(shards), self._digest.hexdigest()[:16], FORM)


def _numbers(split: types.Split) -> types.Split:
    """Return the rows unchanged.

    Raises:
      SbmError: if they have strings, which records cannot hold.
    """
    for name, values in split.data.items():
        if values.dtype.kind == "U":
            raise SbmError(f"{name!r} has strings; records hold numbers. Turn them into ids with the format 'text'.")
    return split


def _layout(split: types.Split) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {name: (dtype, shape of a row)} for all modalities and labels, which all rows must share."""
    labels = {name: values for name, values in arrays.small_arrays(split).items() if not name.endswith(".present")}
    return {name: (values.dtype.name, values.shape[1:]) for name, values in {**split.data, **labels}.items()}


# MARK: The command

_CHUNK_BYTES = 2**26


def _mapped(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the memory-mapped arrays of a directory, by name."""
    try:
        found = {path.stem: np.load(path, "r", allow_pickle=False) for path in files.listing(directory, (".npy",))}
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"an array in {directory} cannot be read: {error}. Write it again with numpy.save.") from error
    lengths = {name: array.shape[:1] for name, array in found.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise SbmError(
            f"{directory} has arrays of {lengths} rows; expected one or more .npy files with the same number of rows."
        )
    return found


def _chunks(found: Mapping[str, np.ndarray], advance: Callable[[int], None]) -> Iterator[dict[str, np.ndarray]]:
    num_rows = len(next(iter(found.values())))
    size = max(1, _CHUNK_BYTES * num_rows // sum(array.nbytes for array in found.values()))
    for start in range(0, num_rows, size):
        chunk = {name: np.array(array[start : start + size]) for name, array in found.items()}
        yield chunk
        advance(len(next(iter(chunk.values()))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the records of a data set."""
    parser = argparse.ArgumentParser(
        prog="python -m sbm_jax.data.write_records",
        description=__doc__.split("\n\n")[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("arrays", help="directory with train, validation and test")
    parser.add_argument("records", help="directory to write")
    given = parser.parse_args(arguments)
    try:
        root = files.directory(given.arrays, "your arrays", "ARRAYS")
        for name in ("train", "validation", "test"):
            found = _mapped(files.directory(str(root / name), f"the {name} arrays", "ARRAYS"))
            with progress_bar(f"write {name}", len(next(iter(found.values()))), "rows") as advance:
                write_records(user_path(given.records, "RECORDS"), name, _chunks(found, advance))
    except SbmError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
