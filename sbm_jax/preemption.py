"""What to do when the machine is wanted back: save, and tell that the same command goes on from there."""

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
"""Seconds from SIGTERM until the process ends, whatever it is doing then."""

ASK_EVERY = 10
"""Training steps between two questions to the other processes, each of which waits for the devices."""


class Preempted(BaseException):
    """The process was told to end (SIGTERM), and what was done is saved."""


class _State:
    requested = False
    saving_first = False


@contextlib.contextmanager
def listening(grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Turn SIGTERM into `Preempted`: at once, or within `saving_first` as soon as that asks.

    Python runs handlers between its own instructions only, which a process that is inside the compiler, or waits for a
    device, may not reach: a thread ends it after `grace_seconds`, with the status `RESUME`. What was saved is kept, as
    files are replaced whole.
    """
    if threading.current_thread() is not threading.main_thread():  # only it can have handlers
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
    """End the process if this block goes on for so long after SIGTERM."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # as `set_wakeup_fd` wants it
    done = threading.Event()

    def watch() -> None:
        with os.fdopen(read_end, "rb", buffering=0) as signals:  # open to the end: more signals may come
            while signals.read(1) not in (b"", bytes([signal.SIGTERM])):
                pass  # another signal
            if not done.wait(grace_seconds):
                message = f"SIGTERM came {grace_seconds:g} s ago; this process ends now. What was saved is kept.\n"
                with contextlib.suppress(OSError):  # nobody may read it
                    os.write(2, message.encode())  # standard error: its Python object may be locked
                os._exit(RESUME)

    # The handler in C writes the number of each signal there, wherever the main thread is.
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
    """Within it SIGTERM is only noted: what runs asks `requested` between its steps, saves, and raises `Preempted`.

    What was noted and not asked for is raised at the end.
    """
    _State.saving_first = True
    try:
        yield
    finally:
        _State.saving_first = False
    if _State.requested:
        raise Preempted


def requested(done: int, count: int) -> bool:
    """Return whether to save and end: the same in all processes.

    Several processes ask each other now and then; one of them that was told is enough.

    Args:
      done: steps of training until now.
      count: how many of them were made since this was asked last.
    """
    if jax.process_count() == 1:
        return _State.requested
    if done // ASK_EVERY == (done - count) // ASK_EVERY:
        return False
    return bool(np.max(multihost_utils.process_allgather(np.int32(_State.requested))))
