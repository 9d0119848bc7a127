"""Data parallelism over all devices of all processes: what is split, what is replicated, and who writes.

One `jit` runs over the global batch on a mesh of all devices, the successor of `jax.pmap`. Random draws and means are
taken over the global batch, so that results do not depend on the number of devices or processes. Every process runs the
same program; the first one writes the files.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sbm_jax.errors import SbmError
from sbm_jax.rows import ArrayRows, as_rows, read_ahead
from sbm_jax.types import Array, Params

T = TypeVar("T")

# MARK: Processes

HEARTBEAT_SECONDS = 20
"""Seconds without a heartbeat from one process after which the others end."""


def start() -> None:
    """Connect the processes of a job, if there are several; must come before any other use of JAX.

    Cloud TPU and Slurm need no settings. Elsewhere three environment variables describe the job, as the files in
    `launch/` set them: ``SBM_JAX_COORDINATOR`` (host:port of process 0), ``SBM_JAX_NUM_PROCESSES`` and
    ``SBM_JAX_PROCESS_ID``.

    Raises:
      SbmError: if only some of them are set, or a number is malformed.
    """
    names = ("SBM_JAX_COORDINATOR", "SBM_JAX_NUM_PROCESSES", "SBM_JAX_PROCESS_ID")
    given = [os.environ.get(name, "") for name in names]
    limits = {
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "initialization_timeout": 300,
        "shutdown_timeout_seconds": 30,
    }
    # `sbm_jax.preemption` handles SIGTERM: JAX's own service would have to be polled at every step.
    jax.config.update("jax_enable_preemption_service", False)
    if any(given):
        address, number, process = given
        if not (address and number.isdecimal() and process.isdecimal() and int(process) < int(number)):
            raise SbmError(
                f"the variables {', '.join(names)} are {given}; expected host:port, the number of processes, and the "
                "index of this one, from 0. Set all of them, or none for a single process."
            )
        if int(number) > 1:
            jax.distributed.initialize(
                address, int(number), int(process), cluster_detection_method="deactivate", **limits
            )
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 or _on_cloud_tpu():
        jax.distributed.initialize(**limits)


def _on_cloud_tpu() -> bool:
    devices = (Path("/dev/accel0"), Path("/dev/vfio/0"))
    return importlib.util.find_spec("libtpu") is not None and any(path.exists() for path in devices)


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until every process has reached this call; `name` must be the same in all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """Run a block in the first process before all others, so that they find what it writes."""
    if not is_main():
        wait_for_all(name)
    yield
    if is_main():
        wait_for_all(name)


def from_main(make: Callable[[], int]) -> int:
    """Call `make` in the first process only, and return its result in every process, as an int32."""
    if jax.process_count() == 1:
        return make()
    return int(multihost_utils.broadcast_one_to_all(np.int32(make() if is_main() else 0)))


def as_in_main(tree: Params) -> Params:
    """Broadcast arrays that each process has made itself from the first one; leave arrays that span processes."""
    if jax.process_count() == 1:
        return tree
    shared = iter(
        multihost_utils.broadcast_one_to_all([leaf for leaf in jax.tree.leaves(tree) if not _is_spread(leaf)])
    )
    return jax.tree.map(lambda leaf: leaf if _is_spread(leaf) else next(shared), tree)


def kept(read: Callable[[], T | None], make: Callable[[], T], write: Callable[[T], None], name: str) -> T:
    """Return what `read` finds, or else what all processes `make` together and the first one writes.

    Args:
      read: reads what is kept; returns None if there is nothing.
      make: computes it otherwise.
      write: keeps it for the next time.
      name: identifies this call; the same in all processes.

    Raises:
      SbmError: if a process does not see what the first one sees.
    """
    found = read()
    if from_main(lambda: int(found is not None)):
        if found is None:
            raise SbmError(f"this process does not see {name}, which the first one does. {SHARED}")
        return found
    found = make()
    if is_main():
        write(found)
    wait_for_all(name)
    return found


SHARED = "All processes of a job must have the same work directory, on storage that they share."


# MARK: Devices


def data_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Return the mesh with the single axis ``data`` over the given devices, by default all."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding that replicates arrays on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Params, mesh: jax.sharding.Mesh) -> Params:
    """Replicate a pytree of arrays, the same in every process, on every device of the mesh."""
    sharding = replicated(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(array):
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(array)))
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    # Gather all arrays that span processes in one program: with several, processes might start different ones and hang.
    spread = iter(_gather(mesh)([leaf for leaf in jax.tree.leaves(tree) if _is_spread(leaf)]))
    return jax.tree.map(lambda leaf: next(spread) if _is_spread(leaf) else put(leaf), tree)


def _is_spread(leaf: Any) -> bool:
    """Return whether an array spans the devices of several processes."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


@functools.cache
def _gather(mesh: jax.sharding.Mesh):
    return jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))


def split_batch(batch: Params, mesh: jax.sharding.Mesh) -> Params:
    """Split the first axis of every array over the mesh, within `jit`."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh, what: str) -> None:
    """Check that a batch splits evenly.

    Raises:
      SbmError: if `batch_size` is not a multiple of the number of devices.
    """
    if batch_size % mesh.size:
        raise SbmError(
            f"the batch size of {what}, {batch_size}, is not a multiple of the {mesh.size} devices; choose one that is."
        )


LARGE = 2**20
"""The number of entries from which a parameter is worth splitting."""


def split_large(tree: Params, mesh: jax.sharding.Mesh) -> Params:
    """Return shardings for a pytree of arrays or shapes: large leaves are split, all others replicated.

    A large leaf is split along the longest axis that the number of devices divides.
    """

    def sharding(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if leaf.size < LARGE or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

    return jax.tree.map(sharding, tree)


# MARK: Functions of rows


def over_rows(function: Callable[..., T], **jit_options: Any) -> Callable[..., T]:
    """Compile `function(whole, rows, ...)`, with its rows split over all devices.

    Args:
      function: its second argument is a pytree of arrays [B, ...]; it returns scalars and arrays [B, ...], whose rows
        must not depend on rows appended to the arguments.
      **jit_options: options of `jax.jit`, such as `static_argnames`.

    Returns:
      The function; its results are replicated. If the number of devices does not divide B, the first row is repeated at
      the end, and removed from the returned arrays (scalars cannot be corrected).
    """

    @functools.partial(jax.jit, **jit_options)
    def compiled(whole, rows, *arguments, **named):
        mesh = data_mesh()
        if mesh.size == 1:
            return function(whole, rows, *arguments, **named)
        num_rows = len(jax.tree.leaves(rows)[0])
        split = split_batch(jax.tree.map(functools.partial(_lengthen, multiple=mesh.size), rows), mesh)
        result = function(whole, split, *arguments, **named)
        result = jax.tree.map(lambda array: array[:num_rows] if jnp.ndim(array) else array, result)
        return jax.lax.with_sharding_constraint(result, replicated(mesh))

    return compiled


def _lengthen(array: Array, multiple: int) -> Array:
    """Append copies of the first row until `multiple` divides the number of rows."""
    missing = -len(array) % multiple
    return jnp.concatenate([array, jnp.repeat(array[:1], missing, axis=0)]) if missing else array


# MARK: Rows of training data


class Feed:
    """The rows of a training stage, on the devices or on the host, and the batches that are taken from them.

    Arrays that are on the devices already, or fit there, are replicated, and each device takes its batches from them.
    Other arrays stay on the host, as do those of several processes, and `Rows` stay on disk: each process then reads
    only the part of a batch that its own devices compute, so that a row is read and moved once.
    """

    SHARE = 0.25
    """The largest fraction of a device's memory that rows may take."""

    def __init__(self, rows: Any, mesh: jax.sharding.Mesh, on_host: bool | None = None):
        """Place the rows, `Rows` or a pytree of arrays [N, ...].

        Args:
          rows: the training rows.
          mesh: the devices.
          on_host: whether arrays stay on the host; None decides by their type and size. Rows that are not arrays stay
            where they are.
        """
        rows = as_rows(rows)
        self.num_rows, self.mesh = len(rows), mesh
        if isinstance(rows, ArrayRows):
            leaves = jax.tree.leaves(rows.arrays)
            if on_host is None:
                at_hand = all(isinstance(leaf, np.ndarray) for leaf in leaves)
                size = sum(leaf.nbytes for leaf in leaves)
                on_host = at_hand and (jax.process_count() > 1 or size > self.SHARE * _device_memory(mesh))
            self.on_host = on_host
            rows = ArrayRows(jax.tree.map(np.asarray, rows.arrays)) if on_host else replicate(rows.arrays, mesh)
        else:
            self.on_host = True
        self._rows = rows

    def read(self, num: int, indices: Callable[[int], np.ndarray]) -> Iterator[tuple[Any, Any]]:
        """Yield what `take` returns for `indices(0)` to `indices(num - 1)`; the host reads ahead.

        Args:
          num: how many to yield, at least 1.
          indices: `number -> int [K, B]`, the rows of K batches; depends on the number alone.
        """
        if not self.on_host:
            for i in range(num):
                yield self._rows, indices(i)
            return
        row_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._rows.take(np.zeros(1, int))))
        parts = read_ahead(lambda i: self._own(indices(i)), num, row_bytes * indices(0).size)
        with contextlib.closing(parts):
            for part in parts:
                yield None, self._place(*part)

    def take(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Return the arguments with which a compiled function calls `batch`, for K batches of rows [K, B]."""
        return (None, self._place(*self._own(indices))) if self.on_host else (self._rows, indices)

    def _own(self, indices: np.ndarray) -> tuple[int, Any]:
        """Return B, and this process's share of batches [K, B] as a pytree of arrays [K, own rows, ...]."""
        num, size = indices.shape
        own = indices[:, share(size, self.mesh, self.mesh.local_devices)]
        rows = self._rows.take(own.ravel())
        return size, jax.tree.map(lambda array: array.reshape(num, -1, *array.shape[1:]), rows)

    def _place(self, size: int, own: Any) -> Any:
        """Assemble the global batches [K, B, ...] from this process's share of them."""
        split = size % self.mesh.size == 0
        sharding = NamedSharding(self.mesh, PartitionSpec(None, "data") if split else PartitionSpec())
        return jax.tree.map(
            lambda array: jax.make_array_from_process_local_data(sharding, array, (len(array), size, *array.shape[2:])),
            own,
        )

    def batch(self, rows: Any, part: Any) -> Any:
        """Within `jit`, return a batch [B, ...] of rows, given one of the K parts of what `take` returned.

        It is split over the devices if their number divides B.
        """
        batch = part if self.on_host else jax.tree.map(lambda array: array[part], rows)
        return batch if len(jax.tree.leaves(batch)[0]) % self.mesh.size else split_batch(batch, self.mesh)


def share(batch_size: int, mesh: jax.sharding.Mesh, devices: Collection[jax.Device]) -> np.ndarray:
    """Return the rows of a batch that some devices compute, int [own rows]: all, if the batch does not split evenly."""
    if batch_size % mesh.size:
        return np.arange(batch_size)
    own = [device in devices for device in mesh.devices.flat]
    return np.flatnonzero(np.repeat(own, batch_size // mesh.size))


def _device_memory(mesh: jax.sharding.Mesh) -> float:
    """Return the bytes of a device's memory; infinite on CPU, or if it is not reported."""
    device = mesh.local_devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return limit or float("inf")
