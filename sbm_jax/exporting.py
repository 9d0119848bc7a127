"""Trained samplers as programs that run with JAX alone: `jax.export` artifacts, what they take, and their weights."""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from sbm_jax.config import plain
from sbm_jax.errors import SbmError, unknown
from sbm_jax.formats import make_format
from sbm_jax.runner import Runner
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import write_atomically
from sbm_jax.types import Modality

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that programs can be exported for, from any machine."""

UNITS = (
    "Numbers with the format 'standardized' are in the units of the training data; the program standardises them. "
    "Other data are arrays as networks see them: images and probabilities in their bounds, ids of tokens."
)
"""What the description of a program says of its data."""


def check_platforms(platforms: Sequence[str] | None) -> list[str]:
    """Return the platforms of a program, each once; None stands for the one in use.

    Raises:
      SbmError: if one is unknown, or the list is empty.
    """
    if platforms is None:
        return [jax.export.default_export_platform()]
    if isinstance(platforms, str) or not platforms:
        raise SbmError(f"platforms is {platforms!r}; expected a list of one or more of {', '.join(PLATFORMS)}.")
    for name in platforms:
        if name not in PLATFORMS:
            raise unknown("platform", name, PLATFORMS)
    return list(dict.fromkeys(platforms))


def named_leaves(products: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters by path, ``stage/part/...``, in the order of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(dict(products)))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def write(
    runner: Runner,
    options: SamplerOptions,
    path: Path,
    *,
    given: Sequence[str],
    targets: Sequence[str],
    num_rows: int,
    num_samples: int,
    strength: float | None,
    platforms: Sequence[str],
    weights: Path | None,
) -> Path:
    """Write a sampler, and beside it a ``.json`` file that says how to call it; return the path of the latter.

    Args:
      runner: the system's runner.
      options: sampler options.
      path: path of the program.
      given: names of the observed modalities.
      targets: names of the modalities to return.
      num_rows: B, rows per call.
      num_samples: S, samples per row.
      strength: guidance strength; None for the config's.
      platforms: some of `PLATFORMS`.
      weights: a file for the weights, which the program then takes as an argument; None embeds them in the program.

    Raises:
      SbmError: if a required package is missing, the system refuses, or a file cannot be written.
    """
    described = path.with_suffix(".json")
    if described == path or weights in (path, described):
        raise SbmError(f"{path}, {weights} and {described} must be three different files. Choose other names.")
    _require_packages("flatbuffers", *([] if weights is None else ["safetensors"]))
    leaves = named_leaves(runner.products)
    observed = np.array([modality.name in given for modality in runner.system.modalities])
    function = runner.function(options, observed, num_rows, num_samples, strength, targets)
    tree = jax.tree.structure(dict(runner.products))

    known = {modality.name: modality for modality in runner.system.modalities}
    formats = {name: make_format(modality) for name, modality in known.items()}

    def program(values, seed, data):
        rows = {name: formats[name].to_network(array) for name, array in data.items()}
        samples = function(jax.tree.unflatten(tree, [values[name] for name in leaves]), seed, rows)
        return {name: formats[name].from_network(array) for name, array in samples.items()}

    rows = {name: jax.ShapeDtypeStruct((num_rows, *known[name].shape), known[name].dtype) for name in given}
    arguments = (jax.ShapeDtypeStruct((), np.uint32), rows)
    if weights is None:
        exporter = jax.export.export(jax.jit(lambda seed, data: program(leaves, seed, data)), platforms=platforms)
    else:
        exporter = jax.export.export(jax.jit(program), platforms=platforms)
        arguments = ({name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in leaves.items()}, *arguments)
    content = exporter(*arguments).serialize()
    if weights is not None:
        write_atomically(weights, _packed(leaves))
    write_atomically(path, bytes(content))
    beside = None if weights is None else os.path.relpath(weights, path.parent)
    told = {
        "program": path.name,
        "weights": beside,
        "platforms": list(platforms),
        "system": runner.system.name,
        "sampler": plain(options),
        "strength": strength,
        "units": UNITS,
        "seed": {"shape": [], "dtype": "uint32"},
        "given": {name: _told(known[name], (num_rows,)) for name in given},
        "returned": {name: _told(known[name], (num_rows, num_samples)) for name in targets},
        "python": _lines(path.name, beside, [known[name] for name in given], num_rows),
    }
    write_atomically(described, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return described


def _require_packages(*names: str) -> None:
    """Raise `SbmError` unless packages are installed: JAX serialises programs with one that it does not depend on."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SbmError(f"an export needs the package {name}. Install it: pip install 'sbm_jax[export]'.")


def _packed(leaves: Mapping[str, np.ndarray]) -> bytes:
    """Serialise arrays as the content of a .safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()})


def _told(modality: Modality, axes: tuple[int, ...]) -> dict[str, Any]:
    """Describe a modality: shape and type in the program, and the format of the users' data."""
    shape, dtype = [*axes, *modality.shape], np.dtype(modality.dtype).name
    told = {"shape": shape, "dtype": dtype, "bounds": list(modality.bounds), "likelihood": modality.likelihood}
    return {**told, "format": plain(modality.format)}


def _lines(program: str, weights: str | None, given: Sequence[Modality], num_rows: int) -> list[str]:
    """Return lines of Python that call the program from its own directory."""
    rows = [f"{m.name!r}: np.zeros({(num_rows, *m.shape)}, np.{np.dtype(m.dtype).name})" for m in given]
    lines = ["import jax.export", "import numpy as np"]
    if weights is not None:
        lines += ["from safetensors.numpy import load_file", f"weights = load_file({weights!r})"]
    return [
        *lines,
        f"program = jax.export.deserialize(bytearray(open({program!r}, 'rb').read()))",
        f"data = {{{', '.join(rows)}}}",
        f"samples = program.call({'' if weights is None else 'weights, '}np.uint32(0), data)",
    ]
