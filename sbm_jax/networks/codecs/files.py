"""Saves one codec's parameters to a NumPy ``.npz`` file of arrays by path, such as ``encoder/Dense_0/kernel``."""

import hashlib
import io
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.storage import DAMAGED_ARCHIVE, user_path, write_atomically
from sbm_jax.types import Params


def save(path: str | Path, params: Params) -> None:
    """Write a codec's parameters, in the layout of its `init`, to a file."""
    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    content = io.BytesIO()
    np.savez(content, **flat)
    write_atomically(user_path(path, "path"), content.getvalue())


def digest(path: str) -> str:
    """Return a digest of a file's content.

    Raises:
      SbmError: if the file cannot be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()[:16]


def load(path: str, like: Params, name: str) -> Params:
    """Read parameters written by `save`.

    Args:
      path: the file.
      like: arrays, or their shapes and types, in the layout of the codec's `init`.
      name: name of the modality, for messages.

    Raises:
      SbmError: if the file cannot be read, or does not contain parameters of this codec.
    """
    content = _read(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except DAMAGED_ARCHIVE as error:
        raise SbmError(
            f"{path} contains no parameters ({error}); expected a file from TrainedSystem.save_codec."
        ) from error
    expected = flax.traverse_util.flatten_dict(like, sep="/")
    shapes, own = ({key: list(leaf.shape) for key, leaf in leaves.items()} for leaves in (expected, found))
    wrong = [
        f"{key} is {own.get(key, 'missing')}, expected {shapes.get(key, 'nothing')}"
        for key in sorted({*own, *shapes})
        if own.get(key) != shapes.get(key)
    ]
    if wrong:
        raise SbmError(
            f"{path} does not match the codec of modality {name!r}: {'; '.join(wrong[:3])}. Give the modality the "
            "shape, latent_size, scale, codec.name and codec.network that the parameters were trained with."
        )
    params = {key: jnp.asarray(found[key], leaf.dtype) for key, leaf in expected.items()}
    return flax.traverse_util.unflatten_dict(params, sep="/")


def _read(path: str) -> bytes:
    try:
        return user_path(path, "codec.weights").read_bytes()
    except OSError as error:
        raise SbmError(
            f"codec.weights: {path} cannot be read ({error.strerror}); give a file from TrainedSystem.save_codec."
        ) from error
