"""Two processes with two devices each on one machine, against one process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sbm_jax import parallel
from sbm_jax.errors import SbmError
from sbm_jax.training.writers import read_metrics

ROOT = Path(__file__).parents[2]
STAGES = ("autoencoders_vae", "score_sbm_vae", "mopoe")


def _start(directory, process=0, port=None, devices=4, arguments=()):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    if port:
        env |= {
            "SBM_JAX_COORDINATOR": f"localhost:{port}",
            "SBM_JAX_NUM_PROCESSES": "2",
            "SBM_JAX_PROCESS_ID": str(process),
        }
    command = [sys.executable, "-m", "tests.robustness.pod_worker", str(directory), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _pair(directory, *arguments):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return [_start(directory, process, port, 2, arguments) for process in range(2)]


def _finish(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output


def _samples(directory, name):
    with np.load(directory / f"samples_{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def _assert_close(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    _finish(*_pair(two))
    _finish(_start(one))
    _assert_close(_samples(two, "2x2"), _samples(one, "1x4"))
    for stage in STAGES:
        ours, theirs = (read_metrics(directory / "metrics" / f"{stage}.jsonl") for directory in (two, one))
        losses = [[row["loss"] for row in rows if "loss" in row] for rows in (ours, theirs)]
        assert len(losses[0]) > 6
        np.testing.assert_allclose(*losses, rtol=1e-4)
    # What two processes wrote is read by one, with four devices and with one.
    for devices in (4, 1):
        _finish(_start(two, devices=devices))
        _assert_close(_samples(two, f"1x{devices}"), _samples(two, "2x2"))


@pytest.mark.slow
def test_split_parameters_change_nothing(tmp_path):
    _finish(*_pair(tmp_path / "split", "split"))
    _finish(_start(tmp_path / "whole"))
    _assert_close(_samples(tmp_path / "split", "2x2"), _samples(tmp_path / "whole", "1x4"))


@pytest.mark.slow
@pytest.mark.parametrize("survivor", [0, 1])
def test_a_process_that_dies_ends_the_other_and_the_pair_resumes(tmp_path, survivor):
    pair = _pair(tmp_path, "whole", "4000")
    marker = tmp_path / "stages" / "autoencoders_vae" / "manifests"
    deadline = time.monotonic() + 300
    while not list(marker.glob("*.json")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in pair)
        time.sleep(0.1)
    pair[1 - survivor].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    output, _ = pair[survivor].communicate(timeout=90)
    assert time.monotonic() - killed < 60
    assert pair[survivor].returncode != 0
    assert "Error" in output or "error" in output
    again = _pair(tmp_path, "whole", "4000")
    lines = []
    for line in again[0].stdout:
        lines.append(line)
        if "train autoencoders_vae" in line:
            break
    for process in again:
        process.kill()
        process.wait()
    assert "train autoencoders_vae" in lines[-1], "".join(lines)
    assert int(lines[-1].split()[2].split("/")[0]) >= 4


def test_half_told_is_refused(monkeypatch):
    monkeypatch.setenv("SBM_JAX_COORDINATOR", "localhost:1")
    for number, process in (("", ""), ("2", ""), ("2", "2"), ("two", "0")):
        monkeypatch.setenv("SBM_JAX_NUM_PROCESSES", number)
        monkeypatch.setenv("SBM_JAX_PROCESS_ID", process)
        with pytest.raises(SbmError, match="expected host:port"):
            parallel.start()
