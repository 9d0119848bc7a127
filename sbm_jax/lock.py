"""A lock that allows one writer per work directory."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from sbm_jax.errors import SbmError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def writing_to(workdir: Path) -> Iterator[None]:
    """Hold the lock of a work directory; the operating system releases it however the process ends.

    Whether it holds across machines depends on the file system.

    Raises:
      SbmError: if another process holds it.
    """
    with (workdir / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise SbmError(
                f"{workdir} is being written to by another run ({file.read().strip() or 'unknown'}). Wait until it has "
                "ended, or use another --workdir."
            ) from error
        except OSError as error:  # a file system without locks
            logger.warning(
                "%s cannot be locked (%s): make sure that only one run writes to it.", workdir, error.strerror
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
