"""Reads the tokenizers of pretrained networks from `tokenizer.json` files."""

import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.storage import user_path


def read_tokenizer(path: str | os.PathLike[str], option: str) -> Any:
    """Return the `tokenizers.Tokenizer` in a file, without truncation or padding.

    Args:
      path: path of the file.
      option: name of the option that holds the path, for messages.

    Raises:
      SbmError: if `tokenizers` is not installed, or the file is missing or not a tokenizer.
    """
    return _read(str(user_path(path, option)), option)


@functools.cache
def _read(path: str, option: str) -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise SbmError(f"{option}: tokenizers of files need a package; pip install 'sbm_jax[pretrained]'.") from error
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
        json.loads(content)
    except (OSError, ValueError) as error:
        raise SbmError(f"{option}: {path} cannot be read: {error}. Name a file tokenizer.json.") from error
    try:
        found = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the package raises plain Exception
        raise SbmError(f"{option}: {path} is not a tokenizer: {error}. Name a file tokenizer.json.") from error
    found.encode_special_tokens = True  # "<|endoftext|>" in a text does not end it
    found.no_truncation()
    found.no_padding()
    return found


def id_of(tokenizer: Any, token: str, option: str) -> int:
    """Return the id of a token.

    Raises:
      SbmError: if it is not in the vocabulary.
    """
    found = tokenizer.token_to_id(token)
    if found is None:
        raise SbmError(f"{option}: the tokenizer has no token {token!r}. Name one that it has, or another file.")
    return found


def padded(rows: Sequence[Sequence[int]], length: int, padding: int = 0) -> np.ndarray:
    """Pad rows of at most `length` ids at the end: int32 [N, length]."""
    ids = np.full((len(rows), length), padding, np.int32)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = own
    return ids
