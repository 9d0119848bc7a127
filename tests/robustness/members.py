"""The processes of a local pod, as the system numbers them."""

import subprocess
from pathlib import Path


def members(pod: subprocess.Popen, module: str) -> list[int]:
    """Return the process numbers of those that run a module, in their order; the script has other children too."""
    children = Path(f"/proc/{pod.pid}/task/{pod.pid}/children").read_text().split()
    return sorted(int(child) for child in children if _runs(child, module))


def _runs(process: str, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it ended
        return False
