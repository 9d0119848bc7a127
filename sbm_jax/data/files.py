"""Finds, checks, reads and fingerprints directories and files that the user names."""

import hashlib
import io
import os
import pathlib
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from sbm_jax.errors import SbmError
from sbm_jax.storage import user_path


def directory(path: str, what: str, option: str) -> pathlib.Path:
    """Return the path of an existing, readable directory.

    Args:
      path: path given by the user; `~` is expanded.
      what: what the directory should hold, for messages.
      option: name of the option that holds the path, for messages.

    Raises:
      SbmError: if the path is empty, or not a readable directory.
    """
    if not path:
        raise SbmError(f"{option} is empty; expected the directory of {what}. Set it.")
    found = user_path(path, option)
    if not found.is_dir():
        raise SbmError(f"{option}={path!r} is not a directory; expected the directory of {what}. Fix the path.")
    if not os.access(found, os.R_OK | os.X_OK):
        raise SbmError(f"{option}={path!r} is not readable; expected the directory of {what}. Fix its permissions.")
    return found


def listing(root: pathlib.Path, suffixes: Iterable[str]) -> list[pathlib.Path]:
    """Return the files of a directory with the given suffixes, sorted by name.

    Hidden files are left out, such as the .DS_Store and ._one.jpg that some systems add when copying.
    """
    suffixes = tuple(suffixes)
    return sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


_UNREADABLE = (
    *(OSError, ValueError, TypeError, SyntaxError, IndexError, KeyError, OverflowError, MemoryError, struct.error),
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files, depending on the format."""

_TO_8_BITS = 257  # 65535 / 255
_OF_ANY_RANGE = ("I", "F")  # modes whose files do not say which value is white


_OF_PICTURES = ("PNG", "JPEG")
"""Formats that image files may have: Pillow would open others too, and run other programs for some of them."""


def image_size(path: pathlib.Path, advice: str) -> tuple[int, int]:
    """Return the stored height and width of a PNG or JPEG image, without decoding it.

    Args:
      path: path of the file.
      advice: what to do about an unusable file, for messages.

    Raises:
      SbmError: if it cannot be read as a PNG or JPEG image.
    """
    try:
        with Image.open(path, formats=_OF_PICTURES) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        raise SbmError(f"{path} cannot be read as an image: {error}. {advice}") from error


def rgb_image(path: pathlib.Path, advice: str, content: bytes | None = None) -> tuple[np.ndarray, str]:
    """Read an image as uint8 [H, W, 3], upright, and its mode in the file, such as ``"RGB"`` or ``"L"``.

    Args:
      path: path of the file.
      advice: what to do about an unusable file, for messages.
      content: content of the file, if it is a member of an archive.

    Raises:
      SbmError: if it cannot be read as an image, is partly transparent, or has 32 bits per channel.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            if image.mode in _OF_ANY_RANGE:
                raise SbmError(f"{path} has 32 bits per channel, of unknown range; expected 8 or 16. {advice}")
            return _opaque(ImageOps.exif_transpose(image), path, advice), image.mode
    except _UNREADABLE as error:
        raise SbmError(f"{path} cannot be read as an image: {error}. {advice}") from error


def _opaque(image: Image.Image, path: pathlib.Path, advice: str) -> np.ndarray:
    """Return the pixels of an opaque image as uint8 [H, W, 3]."""
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise SbmError(f"{path} is partly transparent; expected an opaque image. {advice}")
    if image.mode.startswith("I;16"):  # Pillow would clip it at 255
        grey = np.round(np.asarray(image) / _TO_8_BITS).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:  # such as palettes, which Pillow would warn about
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def content_digest(paths: Iterable[pathlib.Path]) -> str:
    """Return a digest of the names and contents of files, in the order given.

    Raises:
      SbmError: if one of them cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SbmError(f"{path} cannot be read: {error}. Fix the file or its permissions.") from error
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def listing_digest(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> str:
    """Return a digest of the relative paths and sizes of files, for directories too large to read twice."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]
