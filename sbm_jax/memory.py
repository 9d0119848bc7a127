"""The memory that is left, and a check that refuses allocations that would not fit into it."""

from pathlib import Path

import jax
import psutil

from sbm_jax.errors import SbmError

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux reports the limits of a container (control groups, version 2)."""


def available() -> float:
    """Return the bytes that each device of this process can still allocate; infinite if it does not report it."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # CPU devices share the memory of the host
        return min(psutil.virtual_memory().available, _left_in_container()) / jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else float("inf")


def _left_in_container() -> float:
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:  # no container, or another operating system
        return float("inf")
    return int(limit) - int(used) + _reclaimable() if limit.isdecimal() else float("inf")


def _reclaimable() -> int:
    """Return the bytes of inactive page cache, which `memory.current` counts but the kernel can reclaim."""
    try:
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def require_fits(what: str, num_bytes: float, advice: str) -> None:
    """Refuse an allocation that is larger than the memory that is left.

    Args:
      what: what is to be allocated; the subject of the message.
      num_bytes: bytes on one device.
      advice: what to do about it.

    Raises:
      SbmError: if it does not fit; says how much is needed and how much is left.
    """
    left = available()
    if num_bytes > left:
        raise SbmError(f"{what} needs {_told(num_bytes)} of memory, but only {_told(left)} is left. {advice}")


def _told(num_bytes: float) -> str:
    """Format a number of bytes in a suitable unit: 1,500,000,000 bytes are 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes:,.0f} bytes"


def size_of(tree) -> int:
    """Return the size in bytes of a pytree of arrays or of shapes with dtypes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
