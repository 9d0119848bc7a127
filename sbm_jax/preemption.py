"""Handles preemption: on SIGTERM, save, and end with a status that asks for the same command to be run again."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

RESUME = 75
"""The exit status that says "run me again" (EX_TEMPFAIL of sysexits.h), for schedulers."""

GRACE_SECONDS = 12.0
"""Seconds from SIGTERM until the process ends, whatever it is doing."""

ASK_EVERY = 10
"""Training steps between two exchanges with the other processes, each of which waits for the devices."""


class Preempted(BaseException):
    """The process received SIGTERM, and its work is saved."""


class _State:
    requested = False
    saving_first = False


@contextlib.contextmanager
def listening(grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Turn SIGTERM into `Preempted`: at once, or, within `saving_first`, once the work is saved.

    Python runs signal handlers only between its own instructions, which a process that is compiling or waiting for a
    device may not reach. So a thread ends it after `grace_seconds`, with the status `RESUME`. Saved files stay intact,
    because they are replaced as a whole.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can have handlers
        yield
        return

    def handle(number, frame):
        del number, frame
        _State.requested = True
        if not _State.saving_first:
            raise Preempted

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with _ending_after(grace_seconds):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.requested = False


@contextlib.contextmanager
def _ending_after(grace_seconds: float) -> Iterator[None]:
    """End the process if this block is still running `grace_seconds` after SIGTERM."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # `set_wakeup_fd` requires it
    done = threading.Event()

    def watch() -> None:
        with os.fdopen(read_end, "rb", buffering=0) as signals:  # stays open: more signals may come
            while signals.read(1) not in (b"", bytes([signal.SIGTERM])):
                pass  # another signal
            if not done.wait(grace_seconds):
                message = f"SIGTERM came {grace_seconds:g} s ago; this process ends now. What was saved is kept.\n"
                with contextlib.suppress(OSError):  # stderr may be closed
                    os.write(2, message.encode())  # standard error: its Python object may be locked
                os._exit(RESUME)

    # The C handler writes the number of each signal to the pipe, whatever the main thread is doing.
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="SIGTERM", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(write_end)
        watcher.join()


@contextlib.contextmanager
def saving_first() -> Iterator[None]:
    """Only note SIGTERM within this block: its code polls `requested`, saves, and raises `Preempted`.

    If SIGTERM came and the code did not raise, `Preempted` is raised at the end.
    """
    _State.saving_first = True
    try:
        yield
    finally:
        _State.saving_first = False
    if _State.requested:
        raise Preempted


def requested(done: int, count: int) -> bool:
    """Return whether to save and end; the same in all processes.

    Several processes exchange their states every `ASK_EVERY` steps; SIGTERM in any one of them is enough.

    Args:
      done: training steps so far.
      count: how many of them were made since the last call.
    """
    if jax.process_count() == 1:
        return _State.requested
    if done // ASK_EVERY == (done - count) // ASK_EVERY:
        return False
    return bool(np.max(multihost_utils.process_allgather(np.int32(_State.requested))))
