"""Directories and files that the user names: found or refused, and fingerprinted by their content."""

import hashlib
import os
import pathlib
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image

from sbm_jax.errors import SbmError
from sbm_jax.storage import user_path


def directory(path: str, what: str, option: str) -> pathlib.Path:
    """Return an existing directory.

    Args:
      path: as the user gave it; `~` is expanded.
      what: what it should hold, for messages.
      option: the name of the option it came from, for messages.

    Raises:
      SbmError: if nothing was given, or it is not a directory that can be read.
    """
    if not path:
        raise SbmError(f"{option} is empty; expected the directory of {what}. Set it.")
    found = user_path(path, option)
    if not found.is_dir():
        raise SbmError(f"{option}={path!r} is not a directory; expected the directory of {what}. Mend the path.")
    if not os.access(found, os.R_OK | os.X_OK):
        raise SbmError(f"{option}={path!r} may not be read; expected the directory of {what}. Mend its rights.")
    return found


_UNREADABLE = (
    *(OSError, ValueError, TypeError, SyntaxError, IndexError, KeyError, OverflowError, MemoryError, struct.error),
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files, by format."""


def rgb_image(path: pathlib.Path, advice: str) -> tuple[np.ndarray, str]:
    """Return an image as uint8 [H, W, 3], and its mode in the file, such as ``"RGB"`` or ``"L"``.

    Args:
      path: of the file.
      advice: what to do about a damaged one, for messages.

    Raises:
      SbmError: if it can not be read as an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")), image.mode
    except _UNREADABLE as error:
        raise SbmError(f"{path} can not be read as an image: {error}. {advice}") from error


def content_digest(paths: Iterable[pathlib.Path]) -> str:
    """Return a digest of the names and contents of files, in the order given.

    Raises:
      SbmError: if one of them can not be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SbmError(f"{path} can not be read: {error}. Mend the file or its rights.") from error
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def listing_digest(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> str:
    """Return a digest of the relative names and sizes of files, for trees too large to be read twice."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]
