"""Data parallelism: one `jit` over the global batch on a mesh of all devices, the successor of `jax.pmap`.

State is replicated, batches are split on their first axis. Random draws and means are those of the global batch, so
results do not depend on the number of devices.
"""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sbm_jax.errors import SbmError
from sbm_jax.types import Params


def data_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Return the mesh with the single axis ``data`` over the given devices, by default all."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of arrays that each device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Params, mesh: jax.sharding.Mesh) -> Params:
    """Put a pytree of arrays on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def split_batch(batch: Params, mesh: jax.sharding.Mesh) -> Params:
    """Within `jit`, split the first axis of every array over the mesh."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh, what: str) -> None:
    """Check that a batch splits evenly.

    Raises:
      SbmError: if `batch_size` is no multiple of the number of devices.
    """
    if batch_size % mesh.size:
        raise SbmError(
            f"the batch size of {what}, {batch_size}, is no multiple of the {mesh.size} devices; choose one that is."
        )
