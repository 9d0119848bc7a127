"""The results of a run as JSON, with their provenance."""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sbm_jax.config import plain
from sbm_jax.errors import SbmError
from sbm_jax.storage import write_atomically

PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
    "sbm_jax": "sbm_jax",
}


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that affect the numbers; None if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None  # run from a source tree
    return found


def device() -> dict[str, Any]:
    """Return the hardware of the run: platform, kind and number of devices, and CPU cores of this host."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "cpu_count": os.cpu_count(),
    }


def jsonable(value: Any) -> Any:
    """Convert to plain JSON values: named tuples to objects, arrays to lists, non-finite numbers to null."""
    if dataclasses.is_dataclass(value):
        value = plain(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def write_results(path: str | os.PathLike, payload: Mapping[str, Any]) -> None:
    """Write ``results.json``.

    Args:
      path: the file.
      payload: ``{"systems": {name: {"metrics": {metric: Estimate}, "not_available": {metric: reason},
        "warnings": [sentences]}},
        "config", "versions", "device"}``, and optionally ``"name"`` and ``"command"`` (strings), ``"seconds"``
        (``{stage: float}``), ``"data"`` (``{"metrics"}`` of real data), ``"published"`` (a key of `published.PAPERS`),
        ``"variations"`` (like a system, with ``"study"`` and ``"value"``) and ``"to_come"`` (those not done yet).

    Raises:
      SbmError: if it cannot be written.
    """
    write_atomically(path, json.dumps(jsonable(payload), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Raises:
      SbmError: if it is missing, or not the JSON that `write_results` writes.
    """
    try:
        results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SbmError(f"could not read {path}: {error.strerror}. Run the evaluation first.") from error
    except ValueError as error:
        raise SbmError(f"{path} is not JSON ({error}). Delete it and run the evaluation again.") from error
    if not isinstance(results, dict) or "systems" not in results:
        raise SbmError(f"{path} has no 'systems'. Delete it and run the evaluation again.")
    return results
