"""Reads files of `torch.save` without PyTorch, and without running any code that they contain."""

import collections
import hashlib
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.storage import DAMAGED_ARCHIVE

_DAMAGED = (*DAMAGED_ARCHIVE, OSError, AttributeError, IndexError, ImportError, pickle.UnpicklingError)
"""What the zip and pickle modules raise on damaged files, depending on the damage."""

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""NumPy's names for the types of PyTorch's storages, without the byte order."""

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2


def read_torch(path: pathlib.Path) -> Any:
    """Read what `torch.save` wrote: containers, numbers, strings, and an array in place of each tensor.

    A pickle can name any function to be called. Here it may name only those that rebuild tensors and arrays.

    Raises:
      SbmError: if the file cannot be read, or names anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)
            order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in archive.namelist() else b"little"
            with archive.open(f"{root}/data.pkl") as file:
                return _Unpickler(file, archive, root, path, ">" if order == b"big" else "<").load()
    except zipfile.BadZipFile as error:
        raise SbmError(
            f"{path} is not a zip archive ({error}); expected a file of torch.save. If PyTorch before 1.6 wrote it, "
            "load and save it with a newer version; otherwise fetch it again."
        ) from error
    except _DAMAGED as error:
        raise SbmError(f"{path} cannot be read as a file of torch.save: {error}. Fetch it again.") from error


def digest(path: pathlib.Path) -> str:
    """Return a digest of a file's content, from the checksums in its zip archive.

    Raises:
      SbmError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [(part.filename, part.file_size, part.CRC) for part in archive.infolist()]
    except _DAMAGED as error:
        raise SbmError(f"{path} cannot be read as a file of torch.save: {error}. Fetch it again.") from error
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _root(archive: zipfile.ZipFile, path: pathlib.Path) -> str:
    """Return the name of an archive's single folder."""
    found = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise SbmError(f"{path} has {len(found)} parts named data.pkl; expected one, as torch.save writes it.")
    return found[0]


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors as arrays, and refuses to import anything else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str, path: pathlib.Path, order: str):
        super().__init__(file, encoding="utf-8")
        self.archive, self.root, self.path, self.order = archive, root, path, order
        # Methods and built-in functions, whose attributes a pickle cannot set.
        self.known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("_codecs", "encode"): self.encoded,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            **{(module, "_reconstruct"): np.empty(0).__reduce__()[0] for module in _NUMPY},
            **{(module, "scalar"): np.float64(0).__reduce__()[0] for module in _NUMPY},
            **{("torch", name): order + kind for name, kind in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that a pickle names.

        Raises:
          SbmError: if tensors and arrays do not need it.
        """
        if (module, name) not in self.known:
            raise SbmError(
                f"{self.path} names {module}.{name}; expected only tensors, arrays and plain containers, as nothing "
                "else is safe to load. Do not trust the file, or save its tensors again."
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the values of a storage, as a read-only 1-D array."""
        kind, dtype, key, _, num = pid
        values = np.frombuffer(self.archive.read(f"{self.root}/data/{key}"), dtype)
        if kind != "storage" or len(values) != num:
            raise ValueError(f"part {key!r} has {len(values)} values, but declares {num}")
        return values

    def tensor(self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
        """Return a tensor as a strided view of its storage."""
        plain = all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if not plain or (0 not in size and last >= len(storage)):
            raise ValueError(f"a tensor of shape {size} exceeds its {len(storage)} values")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)

    def encoded(self, text: str, encoding: str) -> bytes:
        """Return the bytes that a text encodes."""
        return text.encode(encoding)
