"""Two processes with two devices each on one machine, against one process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sbm_jax import parallel
from sbm_jax.errors import SbmError
from sbm_jax.preemption import RESUME
from sbm_jax.training.writers import read_metrics
from tests.robustness.kill import command, numbers, tiny, write_data
from tests.robustness.members import members

ROOT = Path(__file__).parents[2]
STAGES = ("autoencoder_vae_left", "score_sbm_vae", "mopoe")


def _start(command, devices=4):
    """Start one process of a module."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    return _popen([sys.executable, "-m", *command], env)


def _pair(command):
    """Start two processes of a module, with two devices each."""
    module, *arguments = command
    env = {**os.environ, "PYTHON": sys.executable, "MODULE": module}
    return _popen(["bash", "launch/local_pod.sh", "2", "2", *arguments], env)


def _popen(command, env):
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _worker(directory, *arguments):
    return ["tests.robustness.pod_worker", str(directory), *arguments]


def _finish(process):
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
    _finish(_pair(_worker(two)))
    _finish(_start(_worker(one)))
    _assert_close(_samples(two, "2x2"), _samples(one, "1x4"))
    for stage in STAGES:
        ours, theirs = (read_metrics(directory / "metrics" / f"{stage}.jsonl") for directory in (two, one))
        losses = [[row["loss"] for row in rows if "loss" in row] for rows in (ours, theirs)]
        assert len(losses[0]) > 6
        np.testing.assert_allclose(*losses, rtol=1e-4)
    # What two processes wrote is read by one, with four devices and with one.
    for devices in (4, 1):
        _finish(_start(_worker(two), devices=devices))
        _assert_close(_samples(two, f"1x{devices}"), _samples(two, "2x2"))


@pytest.mark.slow
def test_split_parameters_change_nothing(tmp_path):
    _finish(_pair(_worker(tmp_path / "split", "split")))
    _finish(_start(_worker(tmp_path / "whole")))
    _assert_close(_samples(tmp_path / "split", "2x2"), _samples(tmp_path / "whole", "1x4"))


@pytest.mark.slow
def test_two_processes_that_read_their_shares_from_disk_get_the_same_bits(tmp_path):
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    _finish(_pair(_worker(memory)))
    _finish(_pair(_worker(disk, "records")))
    one, other = (_samples(directory, "2x2") for directory in (memory, disk))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def _main(directory, workdir, *options):
    return command(tiny(directory / "data"), directory / workdir)[2:] + list(options)


@pytest.mark.slow
def test_two_processes_judge_as_one_does(tmp_path):
    write_data(tmp_path / "data")
    _finish(_pair(_main(tmp_path, "two")))
    _finish(_start(_main(tmp_path, "one")))
    ours, theirs = (numbers(tmp_path / workdir) for workdir in ("two", "one"))
    assert (tmp_path / "two" / "report" / "index.html").is_file()
    for system, metrics in theirs.items():
        assert ours[system].keys() == metrics.keys()
        for name, estimate in metrics.items():
            assert ours[system][name]["n"] == estimate["n"], name  # nothing is dropped
            assert ours[system][name]["value"] == pytest.approx(estimate["value"], abs=0.05, rel=0.05), name


LONG = "--config.autoencoder.training.num_steps=1000000"


def _train_for_a_while(tmp_path):
    """Start a pair, and return it once there are checkpoints."""
    if not (tmp_path / "data").exists():
        write_data(tmp_path / "data")
    pair = _pair(_main(tmp_path, "run", LONG))
    manifests = tmp_path / "run" / "stages" / "autoencoder_vae_a" / "manifests"
    before, deadline = set(manifests.glob("*.json")), time.monotonic() + 400
    while set(manifests.glob("*.json")) <= before:
        assert time.monotonic() < deadline
        assert pair.poll() is None, pair.communicate()[0]
        time.sleep(0.1)
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("survivor", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_process_that_dies_ends_the_other_and_the_pair_resumes(tmp_path, survivor):
    pair = _train_for_a_while(tmp_path)
    os.kill(members(pair, "sbm_jax.main")[1 - survivor], signal.SIGKILL)
    killed = time.monotonic()
    output, _ = pair.communicate(timeout=90)
    assert time.monotonic() - killed < 60
    assert pair.returncode == 128 + signal.SIGKILL
    assert f"process {1 - survivor} ended with status {pair.returncode}" in output
    assert "killing processes" not in output
    assert re.search(rf"process {survivor} ended with status ({RESUME}|{128 + signal.SIGABRT})\n", output)
    told = "another process of this job exited" in output and f"process {survivor} ended with status {RESUME}" in output
    assert told or "JAX distributed service detected fatal errors" in output, output
    again = _train_for_a_while(tmp_path)
    for process in members(again, "sbm_jax.main"):
        os.kill(process, signal.SIGKILL)
    assert "stage autoencoder_vae_a resumes from step" in again.communicate(timeout=90)[0]


@pytest.mark.slow
@pytest.mark.parametrize("told", ["one", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_processes_that_are_told_to_end_end_well(tmp_path, told):
    pair = _train_for_a_while(tmp_path)
    if told == "one":
        os.kill(members(pair, "sbm_jax.main")[1], signal.SIGTERM)
    else:
        pair.send_signal(signal.SIGTERM)
    output, _ = pair.communicate(timeout=60)
    assert pair.returncode == RESUME, output
    assert output.count(f"ended with status {RESUME}") == 2
    assert "interrupted by SIGTERM" in output


def test_half_told_is_refused(monkeypatch):
    monkeypatch.setenv("SBM_JAX_COORDINATOR", "localhost:1")
    for number, process in (("", ""), ("2", ""), ("2", "2"), ("two", "0")):
        monkeypatch.setenv("SBM_JAX_NUM_PROCESSES", number)
        monkeypatch.setenv("SBM_JAX_PROCESS_ID", process)
        with pytest.raises(SbmError, match="expected host:port"):
            parallel.start()
