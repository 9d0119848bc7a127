"""Profiling of training steps: speed, memory, model FLOP utilisation and traces."""

import math
import resource
import sys
from pathlib import Path
from typing import Any

import jax

from sbm_jax import parallel

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
}
"""The vendor's peak FLOP/s for dense bfloat16 (float16) operands, by prefix of the JAX `device_kind`."""


def peak_flops(device: jax.Device) -> float | None:
    """Return the peak FLOP/s of a device, None if unknown."""
    known = [name for name in PEAK_FLOPS if device.device_kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def model_flops(train_steps: Any, *arguments: Any) -> float:
    """Return the floating-point operations of one training step, 0 if the device's peak is unknown.

    Counts matrix products and convolutions as written in the program, before any compiler optimisation.

    Args:
      train_steps: see `loop.make_train_steps`.
      *arguments: the arguments of `train_steps`.
    """
    if peak_flops(jax.local_devices()[0]) is None:
        return 0.0
    state, upstream, rows, parts, key = arguments
    one = jax.tree.map(lambda part: jax.ShapeDtypeStruct((1, *part.shape[1:]), part.dtype), parts)
    return product_flops(jax.make_jaxpr(train_steps)(state, upstream, rows, one, key).jaxpr)


def product_flops(jaxpr: Any) -> float:
    """Return the FLOPs of all matrix products and convolutions in a jaxpr, with the costliest branch of each `cond`.

    Counts the body of a `while` loop once, because its number of iterations is unknown.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * equation.outvars[0].aval.size * depth
        elif name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, parameters["dimension_numbers"]
            depth = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
            # Do not count products with the zeros that dilation inserts into the input.
            total += 2.0 * equation.outvars[0].aval.size * depth / math.prod(parameters["lhs_dilation"])
        elif name == "cond":
            total += max(product_flops(branch.jaxpr) for branch in parameters["branches"])
        else:
            inner = [getattr(value, "jaxpr", value) for value in parameters.values()]
            times = parameters["length"] if name == "scan" else 1
            total += times * sum(product_flops(part) for part in inner if hasattr(part, "eqns"))
    return total


def speed(seconds: float, num_steps: int, batch_size: int, flops: float | None, mesh: jax.sharding.Mesh) -> dict:
    """Return the speed metrics of some training steps.

    Args:
      seconds: duration of the steps, including validation and compilation.
      num_steps: number of steps.
      batch_size: rows per step.
      flops: FLOPs per step; 0 or None if unknown.
      mesh: the devices.

    Returns:
      ``seconds``, ``seconds_per_step``, ``examples_per_second``, ``peak_memory_bytes`` (of one device, or of the
      process on CPU) and, if `flops` is known, ``model_flop_utilisation``, the fraction of the devices' peak.
    """
    device = mesh.local_devices[0]
    found = {"seconds": seconds, "peak_memory_bytes": float(_peak_memory(device))}
    if num_steps:
        found |= {"seconds_per_step": seconds / num_steps, "examples_per_second": batch_size * num_steps / seconds}
    if flops and num_steps:
        found["model_flop_utilisation"] = flops * num_steps / (seconds * peak_flops(device) * mesh.size)
    return found


def _peak_memory(device: jax.Device) -> int:
    statistics = device.memory_stats() or {} if device.platform != "cpu" else {}
    unit = 1 if sys.platform == "darwin" else 1024
    return statistics.get("peak_bytes_in_use") or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Profile:
    """Traces a few dispatches, after those that compile; view the trace with TensorBoard or Perfetto.

    Does not trace a stage that has too few dispatches.
    """

    FIRST, LAST = 2, 5
    """The trace starts and stops before these dispatches, counted from 0."""

    def __init__(self, directory: Path | None):
        """Write the trace to `directory`; None for no trace."""
        self._directory = directory if parallel.is_main() else None
        self._count, self._running = 0, False

    def step(self) -> None:
        """Start or stop the trace if the dispatch that begins now is `FIRST` or `LAST`."""
        if self._directory is not None and self._count == self.FIRST:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._count == self.LAST:
            self.close()
        self._count += 1

    def close(self) -> None:
        """Stop the trace, if one is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
