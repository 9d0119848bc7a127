"""Weights of pretrained networks: safetensors files become the parameters of Linen modules.

Modules here have the names that the reference implementation gives them, so that the path of a parameter, joined by
dots, is the name of its tensor. Only the last part and the order of the axes differ:

| parameter             | tensor   | axes                                                                 |
|-----------------------|----------|----------------------------------------------------------------------|
| `kernel`              | `weight` | [in, out] from [out, in]; [..., in, out] from [out, in, ...]         |
| `scale`, `embedding`  | `weight` | as they are                                                          |
| any other             | its name | as they are                                                          |

Nothing is unpickled. PyTorch's own files are pickles; where PyTorch is installed, this turns one into a safetensors
file:

    python -c "import sys, torch, safetensors.torch as s; s.save_file(torch.load(sys.argv[1], weights_only=True),
        sys.argv[2])" IN.bin OUT.safetensors
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sbm_jax.errors import SbmError
from sbm_jax.storage import user_path
from sbm_jax.types import Params

Tensors = Mapping[str, np.ndarray]


def read_tensors(path: str | os.PathLike[str], option: str) -> dict[str, np.ndarray]:
    """Return all tensors of a safetensors file by their names; bfloat16 and float16 as float32.

    Args:
      path: of the file.
      option: the name of the option that the path came from, for messages.

    Raises:
      SbmError: if safetensors is not installed, or the file is missing, truncated or no safetensors file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.flax import load_file
    except ModuleNotFoundError as error:
        raise SbmError(f"{option}: pretrained weights need safetensors; pip install 'sbm_jax[pretrained]'.") from error
    path = user_path(path, option)
    if not path.is_file():
        raise SbmError(f"{option}: no file {path}.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SbmError(
            f"{option}: {path} is no whole safetensors file ({error}). Get it again; a file of PyTorch (.bin, .pt, "
            ".pth) must be turned into one first, as sbm_jax/networks/pretrained/weights.py says."
        ) from error
    return {name: np.asarray(jax.device_get(tensor), _dtype(tensor.dtype)) for name, tensor in tensors.items()}


def _dtype(dtype: Any) -> Any:
    return np.float32 if dtype in ("bfloat16", "float16", "float64") else dtype


def as_params(
    module: nn.Module, inputs: tuple[Any, ...], tensors: Tensors, option: str, *, method: str | Callable | None = None
) -> Params:
    """Return the parameters of a module, of which every one has its tensor.

    Args:
      module: whose submodules are named as in the reference implementation.
      inputs: what it is called with, arrays or their shapes.
      tensors: {name: array}; those that no parameter has are left aside.
      option: the name of the option that the tensors came from, for messages.
      method: of the module, which makes all its parameters; None for `__call__`.

    Raises:
      SbmError: which names the tensor that is missing or has another shape.
    """
    init = functools.partial(module.init, jax.random.key(0), method=method)
    shapes = jax.eval_shape(init, *inputs)["params"]
    found = {path: _of(path, expected.shape, tensors, option) for path, expected in flatten_dict(shapes).items()}
    return unflatten_dict(found)


def _of(path: tuple[str, ...], shape: tuple[int, ...], tensors: Tensors, option: str) -> np.ndarray:
    """Return a parameter of the expected shape."""
    *modules, leaf = path
    name = ".".join([*modules, "weight" if leaf in ("kernel", "scale", "embedding") else leaf])
    if name not in tensors:
        near = sorted(other for other in tensors if other.rpartition(".")[2] == name.rpartition(".")[2])[:3]
        hint = f" (it has {', '.join(near)} and others)" if near else ""
        raise SbmError(f"{option}: the file has no tensor {name!r}{hint}. It is of another network.")
    tensor = tensors[name]
    if leaf == "kernel":  # [out, in, ...] -> [..., in, out]
        tensor = np.moveaxis(tensor, (1, 0), (-2, -1)) if tensor.ndim > 1 else tensor
    if tensor.shape != shape:
        raise SbmError(
            f"{option}: tensor {name!r} has the shape {tensors[name].shape}, as a {leaf} {tensor.shape}; expected "
            f"{shape}. The config is of a network of another size."
        )
    return np.ascontiguousarray(tensor)


def check_length(length: int, most: int, network: str) -> None:
    """Raise `SbmError` for more tokens than a network has positions: beyond them an embedding would be none."""
    if length > most:
        raise SbmError(f"{network} has {most} positions (most_tokens), and is given {length} tokens; give fewer.")


def without_prefix(tensors: Tensors, *prefixes: str) -> dict[str, np.ndarray]:
    """Return tensors whose names lose the first of the prefixes that they begin with; others keep their names."""
    renamed = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[name.removeprefix(prefix)] = tensor
    return renamed
