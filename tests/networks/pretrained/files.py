"""Weights files of small random networks, as the reference implementations would write them."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict


def tensors_of(module, *inputs, seed=0, prefix="", method=None) -> dict[str, np.ndarray]:
    """Return fresh parameters of a module by the names, and in the shapes, of `weights.py`."""
    params = jax.jit(lambda key: module.init(key, *inputs, method=method))(jax.random.key(seed))["params"]
    found = {}
    for (*modules, leaf), value in flatten_dict(params).items():
        name = ".".join(
            [prefix + modules[0], *modules[1:], "weight" if leaf in ("kernel", "scale", "embedding") else leaf]
        )
        value = np.asarray(value)
        value = np.moveaxis(value, (-2, -1), (1, 0)) if leaf == "kernel" else value
        found[name] = np.ascontiguousarray(value)
    return found


def write(path: Path, tensors: dict[str, np.ndarray]) -> str:
    """Write a safetensors file and return its path."""
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return str(path)
