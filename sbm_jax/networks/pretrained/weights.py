"""Loads weights of pretrained networks from safetensors files as parameters of Linen modules.

The modules use the names of the reference implementation, so that the path of a parameter, joined by dots, is the name
of its tensor. Only the last part and the order of the axes differ:

| parameter             | tensor   | axes                                                                 |
|-----------------------|----------|----------------------------------------------------------------------|
| `kernel`              | `weight` | [in, out] from [out, in]; [..., in, out] from [out, in, ...]         |
| `scale`, `embedding`  | `weight` | unchanged                                                            |
| any other             | its name | unchanged                                                            |

Nothing is unpickled. PyTorch's own files are pickles; with PyTorch installed, this command converts one to a
safetensors file:

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
    """Read all tensors of a safetensors file by name, converting other floating-point types to float32.

    Args:
      path: path of the file.
      option: name of the option that the path came from, for messages.

    Raises:
      SbmError: if safetensors is not installed, or the file is missing, truncated or not a safetensors file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.flax import load_file
    except ModuleNotFoundError as error:
        raise SbmError(f"{option}: pretrained weights need safetensors; pip install 'sbm_jax[pretrained]'.") from error
    path = user_path(path, option)
    if not path.is_file():
        raise SbmError(f"{option}: no file {path}. Name a safetensors file that exists.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SbmError(
            f"{option}: {path} is not a complete safetensors file ({error}). Download it again; PyTorch files (.bin, "
            ".pt, .pth) must be converted first, as described in sbm_jax/networks/pretrained/weights.py."
        ) from error
    return {name: np.asarray(jax.device_get(tensor), _dtype(tensor.dtype)) for name, tensor in tensors.items()}


def _dtype(dtype: Any) -> Any:
    return np.float32 if dtype in ("bfloat16", "float16", "float64") else dtype


def as_params(
    module: nn.Module, inputs: tuple[Any, ...], tensors: Tensors, option: str, *, method: str | Callable | None = None
) -> Params:
    """Convert tensors to the parameters of a module, each of which must have its tensor.

    Args:
      module: a module whose submodules are named as in the reference implementation.
      inputs: example inputs of the module, arrays or their shapes.
      tensors: {name: array}; tensors without a parameter are ignored.
      option: name of the option that the tensors came from, for messages.
      method: the method of the module that creates all its parameters; None for `__call__`.

    Raises:
      SbmError: naming a tensor that is missing or has another shape.
    """
    init = functools.partial(module.init, jax.random.key(0), method=method)
    shapes = jax.eval_shape(init, *inputs)["params"]
    found = {path: _of(path, expected.shape, tensors, option) for path, expected in flatten_dict(shapes).items()}
    return unflatten_dict(found)


def _of(path: tuple[str, ...], shape: tuple[int, ...], tensors: Tensors, option: str) -> np.ndarray:
    """Convert the tensor of one parameter to the expected shape."""
    *modules, leaf = path
    name = ".".join([*modules, "weight" if leaf in ("kernel", "scale", "embedding") else leaf])
    if name not in tensors:
        near = sorted(other for other in tensors if other.rpartition(".")[2] == name.rpartition(".")[2])[:3]
        hint = f" (it has {', '.join(near)} and others)" if near else ""
        raise SbmError(
            f"{option}: the file has no tensor {name!r}{hint}. It belongs to another network: name other weights."
        )
    tensor = tensors[name]
    if leaf == "kernel":  # [out, in, ...] -> [..., in, out]
        tensor = np.moveaxis(tensor, (1, 0), (-2, -1)) if tensor.ndim > 1 else tensor
    if tensor.shape != shape:
        raise SbmError(
            f"{option}: tensor {name!r} has the shape {tensors[name].shape}, as a {leaf} {tensor.shape}; expected "
            f"{shape}. Change the sizes in the config, or name other weights."
        )
    return np.ascontiguousarray(tensor)


def check_length(length: int, most: int, network: str) -> None:
    """Raise `SbmError` for more tokens than a network has positions, which would have no position embedding."""
    if length > most:
        raise SbmError(f"{network} has {most} positions (most_tokens), but got {length} tokens; give fewer.")


def without_prefix(tensors: Tensors, *prefixes: str) -> dict[str, np.ndarray]:
    """Strip from each tensor's name the first matching prefix, if any."""
    renamed = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[name.removeprefix(prefix)] = tensor
    return renamed
