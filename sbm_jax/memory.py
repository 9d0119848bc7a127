"""How much memory is left, and refusing what does not fit into it before it is allocated."""

from pathlib import Path

import jax
import psutil

from sbm_jax.errors import SbmError

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells the limits of a container (control groups, version 2)."""


def available() -> float:
    """Return the bytes that each device of this process can still allocate; infinite where it does not tell."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # all of them share the memory of the host
        return min(psutil.virtual_memory().available, _left_in_container()) / jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else float("inf")


def _left_in_container() -> float:
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:  # no container, or another system
        return float("inf")
    return int(limit) - int(used) + _reclaimable() if limit.isdecimal() else float("inf")


def _reclaimable() -> int:
    """Return the bytes of files in the page cache, which `memory.current` counts and the kernel gives back."""
    try:
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def require_fits(what: str, num_bytes: float, advice: str) -> None:
    """Refuse an allocation that is larger than what is left.

    Args:
      what: what is to be allocated; the subject of the message.
      num_bytes: bytes on one device.
      advice: what to do about it.

    Raises:
      SbmError: with the bytes that are needed and those that are left.
    """
    left = available()
    if num_bytes > left:
        raise SbmError(f"{what} needs {_told(num_bytes)} of memory, but only {_told(left)} is left. {advice}")


def _told(num_bytes: float) -> str:
    """Return a number of bytes in the unit that fits: 1,500,000,000 bytes are 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes:,.0f} bytes"


def size_of(tree) -> int:
    """Return the bytes of a pytree of arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
