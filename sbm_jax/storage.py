"""Atomic writing of files, and the exceptions that damaged files raise."""

import os
import pathlib
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable

from sbm_jax.errors import SbmError

DAMAGED_ARCHIVE = (
    *(ValueError, KeyError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""Exceptions that NumPy may raise on a damaged .npz file."""

DAMAGED_ARRAY = (ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, KeyError, MemoryError)
"""Exceptions that NumPy may raise on a damaged .npy file."""


def user_path(path: str | os.PathLike, option: str) -> pathlib.Path:
    """Return a path that the user gave, with ``~`` expanded, which shells do not do in the middle of an option.

    Args:
      path: as it was given.
      option: the name of the option that it came from, for messages.

    Raises:
      SbmError: if it starts with ``~`` and there is no such home directory.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise SbmError(f"{option}: {str(path)!r} names no home directory ({error}). Write the path in full.") from error


def write_atomically(path: str | os.PathLike, content: str | bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or the new.

    Args:
      path: path of the file; missing directories are created.
      content: all of it, or its parts, which are held in memory one at a time.

    Raises:
      SbmError: if it cannot be written; an existing file stays as it was.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            if isinstance(content, str):
                content = content.encode("utf-8", "backslashreplace")
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # temporary files are private
        os.replace(temporary, path)
    except OSError as error:
        raise SbmError(
            f"could not write {path}: {error.strerror or error}. Expected a writable directory with "
            "free space; free some, or choose another --workdir."
        ) from error
    finally:  # making the parts may fail too
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)
