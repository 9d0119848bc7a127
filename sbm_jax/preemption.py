"""What to do when the machine is wanted back: save, and tell that the same command goes on from there."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

RESUME = 75
"""The exit status that says "run me again" (EX_TEMPFAIL of sysexits.h), for schedulers."""

ASK_EVERY = 10
"""Training steps between two questions to the other processes, each of which waits for the devices."""


class Preempted(BaseException):
    """The process was told to end (SIGTERM), and what was done is saved."""


class _State:
    requested = False
    saving_first = False


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Turn SIGTERM into `Preempted`: at once, or within `saving_first` as soon as that asks."""
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
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.requested = False


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
