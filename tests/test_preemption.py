"""SIGTERM ends a process wherever it is; `tests/training/test_loop.py` has what is saved before."""

import signal
import subprocess
import sys
import time

import pytest

from sbm_jax.preemption import RESUME

# Each says when it is busy, in a call that no Python handler can interrupt.
BUSY = {
    "waiting for a device": """
import jax, jax.numpy as jnp
forever = jax.jit(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 2, lambda x: jnp.sin(x @ x) * 0.1, x))
compiled = forever.lower(jnp.ones((64, 64))).compile()
print("busy", flush=True)
jax.block_until_ready(compiled(jnp.ones((64, 64))))
""",
    "compiling": """
import jax, jax.numpy as jnp
def deep(x):
    for i in range(3000):
        x = jnp.sort(x + i)
    return x
lowered = jax.jit(deep).lower(jnp.ones((8, 64)))
print("busy", flush=True)
lowered.compile()
""",
    "in Python": """
import time
print("busy", flush=True)
time.sleep(600)
""",
}


@pytest.mark.parametrize("work", BUSY)
def test_sigterm_ends_a_process_that_is_busy(work):
    indented = "\n    ".join(BUSY[work].strip().splitlines())
    program = f"""
import os
from sbm_jax import preemption
try:
  with preemption.listening(grace_seconds=1.0):
    {indented}
except preemption.Preempted:
    os._exit(preemption.RESUME)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"busy\n"
            time.sleep(0.5)  # until it is inside of the call
            assert process.poll() is None
            start = time.monotonic()
            for _ in range(2):  # schedulers may send several
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            assert process.wait(timeout=15) == RESUME
            assert b"Exception ignored" not in process.stderr.read()
        finally:
            process.kill()
    assert time.monotonic() - start < 10
