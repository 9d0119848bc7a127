"""Files of `torch.save`, read without PyTorch, and without running what is in them."""

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
"""What the zip and pickle modules raise on files that are damaged, by what of them is."""

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
"""NumPy's names of the types of PyTorch's storages, but for the order of their bytes."""

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2


def read_torch(path: pathlib.Path) -> Any:
    """Return what `torch.save` wrote: containers, numbers, strings, and an array in place of each tensor.

    A pickle may name any function to be called. Here it may name those that tensors and arrays are rebuilt by, and no
    others.

    Raises:
      SbmError: if the file can not be read, or names anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)
            order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in archive.namelist() else b"little"
            with archive.open(f"{root}/data.pkl") as file:
                return _Unpickler(file, archive, root, path, ">" if order == b"big" else "<").load()
    except zipfile.BadZipFile as error:
        raise SbmError(
            f"{path} is no zip archive ({error}); expected a file of torch.save. If a PyTorch before 1.6 wrote it, "
            "load and save it with a newer one; else fetch it again."
        ) from error
    except _DAMAGED as error:
        raise SbmError(f"{path} can not be read as a file of torch.save: {error}. Fetch it again.") from error


def digest(path: pathlib.Path) -> str:
    """Return a digest of a file's content, by the checksums that its zip archive has of its parts.

    Raises:
      SbmError: if it can not be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [(part.filename, part.file_size, part.CRC) for part in archive.infolist()]
    except _DAMAGED as error:
        raise SbmError(f"{path} can not be read as a file of torch.save: {error}. Fetch it again.") from error
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _root(archive: zipfile.ZipFile, path: pathlib.Path) -> str:
    """Return the name of the one folder of an archive."""
    found = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise SbmError(f"{path} has {len(found)} parts named data.pkl; expected one, as torch.save writes it.")
    return found[0]


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors as arrays, and refuses everything else that would have to be imported."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str, path: pathlib.Path, order: str):
        super().__init__(file, encoding="utf-8")
        self.archive, self.root, self.path, self.order = archive, root, path, order
        # Methods and built-in functions, whose attributes a pickle can not set.
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
        """Return what a pickle names.

        Raises:
          SbmError: if tensors and arrays do not need it.
        """
        if (module, name) not in self.known:
            raise SbmError(
                f"{self.path} names {module}.{name}; expected tensors, arrays and plain containers alone, as nothing "
                "else is safe to load. Do not trust the file, or save its tensors again."
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the values of a storage, 1-D and not writable."""
        kind, dtype, key, _, num = pid
        values = np.frombuffer(self.archive.read(f"{self.root}/data/{key}"), dtype)
        if kind != "storage" or len(values) != num:
            raise ValueError(f"part {key!r} has {len(values)} values where {num} are declared")
        return values

    def tensor(self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
        """Return the array that a tensor is of its storage."""
        plain = all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if not plain or (0 not in size and last >= len(storage)):
            raise ValueError(f"a tensor of the shape {size} reaches beyond its {len(storage)} values")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)

    def encoded(self, text: str, encoding: str) -> bytes:
        """Return bytes that were written as text."""
        return text.encode(encoding)
