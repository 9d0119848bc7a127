"""The launch files: shell scripts without complaints, manifests that fit their schema."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.robustness.members import members

ROOT = Path(__file__).parents[2]
LAUNCH = sorted((ROOT / "launch").glob("*.sh"))


@pytest.mark.parametrize("path", [*LAUNCH, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run([shellcheck, "--exclude=SC1091", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)
def test_scripts_tell_their_command(path):
    result = subprocess.run(
        [shutil.which("bash"), str(path)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert result.returncode == 2
    assert f"launch/{path.name} " in result.stderr
    assert "set -euo" not in result.stderr


def _jobset():
    return yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text(encoding="utf-8"))


def test_the_jobs_of_the_jobset_fit_the_schema_of_kubernetes():
    for replicated in _jobset()["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **replicated["template"]}
        kubernetes_validate.validate(job, "1.34", strict=True)
        broken = {**job, "spec": {**job["spec"], "paralelism": 2}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, "1.34", strict=True)


def test_the_jobset_agrees_with_itself():
    jobset = _jobset()
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert job["parallelism"] == job["completions"] == int(env["SBM_JAX_NUM_PROCESSES"])
    assert re.fullmatch(rf"\$\(JOBSET_NAME\)-{workers['name']}-0-0\.\$\(JOBSET_NAME\):8476", env["SBM_JAX_COORDINATOR"])
    assert container["ports"] == [{"containerPort": 8476}]


# MARK: What the scripts do, with commands that only note how they are called


@pytest.fixture
def fake(tmp_path):
    """Return what makes a command on the path that writes its arguments to a file and ends with statuses in turn."""

    def make(name, *statuses):
        log = tmp_path / f"{name}.log"
        command = tmp_path / name
        command.write_text(
            f"#!/bin/bash\nstatuses=({' '.join(map(str, statuses))})\ntouch {log}\ncount=$(wc -l <{log})\n"
            f'echo "${{*//$\'\\n\'/ }}" >>{log}\nexit "${{statuses[count]:-0}}"\n'
        )
        command.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return make


def _launch(script, *arguments, path=None, **env):
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **env}
    command = ["bash", str(ROOT / "launch" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize(("statuses", "expected"), [((0,), 0), ((75, 75, 0), 0), ((75, 1), 1)])
def test_a_gpu_machine_goes_on_after_status_75(tmp_path, fake, statuses, expected):
    calls = fake("python", *statuses)
    assert _launch("gpu.sh", "--config=c.py", path=tmp_path).returncode == expected
    assert calls() == ["-m sbm_jax.main --config=c.py"] * len(statuses)


def test_a_gpu_machine_that_is_told_to_end_does_not_go_on(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/bash\ntrap 'exit 75' TERM\ntouch {tmp_path}/begun\nwhile true; do sleep 0.1; done\n")
    python.chmod(0o755)
    env = {**os.environ, "PYTHON": str(python)}
    process = subprocess.Popen(["bash", str(ROOT / "launch" / "gpu.sh"), "--config=c.py"], env=env)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    process.terminate()
    assert process.wait(30) == 75


@pytest.fixture
def slurm(tmp_path, fake):
    """Return what runs a job of one task, which no batch script has told to ignore signals, and the scheduler."""
    scheduler = fake("scontrol")
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec env --default-signal=TERM "$@"\n')
    srun.chmod(0o755)
    env = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "SLURM_SUBMIT_DIR": str(tmp_path)}
    return lambda: _launch("slurm.sh", "--config=c.py", "--a=b c", path=tmp_path, **env).returncode, scheduler


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (75, 75), (137, 137), (134, 134), (1, 1), (2, 1)])
def test_slurm_puts_a_job_back_unless_it_would_end_so_again(fake, slurm, status, expected):
    (run, scheduler), tasks = slurm, fake("python", status)
    assert run() == expected
    assert tasks() == ["-m sbm_jax.main --config=c.py --a=b c"]
    assert scheduler() == (["requeue 7"] if expected > 1 else [])


def test_slurm_gives_up_after_three_crashes_in_a_row(fake, slurm):
    run, _ = slurm
    fake("python", 137, 75, 137, 134, 75, 137, 137, 137)
    assert [run() for _ in range(8)] == [137, 75, 137, 134, 75, 137, 137, 1]


def test_a_task_of_slurm_passes_sigterm_on(tmp_path, slurm):
    """To the task alone, which Slurm may signal without what it has started."""
    run, scheduler = slurm
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/bash\ntrap 'sleep 0.5; exit 75' TERM\necho $PPID >{tmp_path}/task\nwhile true; do sleep 0.1; done\n"
    )
    python.chmod(0o755)
    with futures.ThreadPoolExecutor() as pool:
        status = pool.submit(run)
        while not (tmp_path / "task").exists() or not (tmp_path / "task").read_text():
            time.sleep(0.01)
        os.kill(int((tmp_path / "task").read_text()), signal.SIGTERM)
        assert status.result(30) == 75
    assert scheduler() == ["requeue 7"]


TPU = {"TPU": "pod", "ZONE": "zone", "TYPE": "v6e-64", "RUNTIME": "r", "STORE": "bucket", "SPOT": "1", "PAUSE": "0"}


def test_a_tpu_pod_is_made_filled_and_deleted(tmp_path, fake):
    calls = fake("gcloud")
    for verb in ("create", "install", "delete"):
        result = _launch("tpu_pod.sh", verb, path=tmp_path, **TPU)
        assert result.returncode == 0, result.stderr
    create, copy, install, delete = calls()
    assert create.endswith("create pod --zone=zone --accelerator-type=v6e-64 --version=r --spot")
    assert "scp" in copy
    assert "gcsfuse" in install
    assert "bucket /store" in install
    assert "delete pod" in delete


@pytest.mark.parametrize(
    ("statuses", "expected"), [((0,), 0), ((75, 137, 0), 0), ((75, 1), 1), ((2,), 1), ((75, 134, 75, 137, 134), 1)]
)
def test_a_tpu_pod_runs_again_unless_it_would_end_so_again(tmp_path, fake, statuses, expected):
    """Though now and then the worker cannot be reached."""
    calls = _worker(tmp_path, fake, *statuses)
    result = _launch("tpu_pod.sh", "run", "--config=c.py", "--workdir=/store/a b", path=tmp_path, **TPU)
    assert result.returncode == expected, result.stderr
    assert calls() == ["-m sbm_jax.main --config=c.py --workdir=/store/a b"] * len(statuses)


def _worker(tmp_path, fake, *statuses):
    """Make a worker whose commands are run in a directory of the test, and return its calls of Python."""
    directory = tmp_path / "sbm_jax" / "venv" / "bin"
    directory.mkdir(parents=True)
    calls = fake("python", *statuses)
    (tmp_path / "python").rename(directory / "python")
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/bin/bash\n[[ $* == *--worker=all* ]] || exit 9\n"
        f'command=${{@: -1}}\ncd {tmp_path} && bash -c "${{command#--command=}}"\n'
    )
    gcloud.chmod(0o755)
    return calls


def test_a_tpu_pod_ends_what_a_broken_session_has_left(tmp_path, fake):
    calls = _worker(tmp_path, fake, 75, 0)
    left = subprocess.Popen(["bash", "-c", "exec -a sbm_jax.main sleep 100"])
    (tmp_path / "sbm_jax" / "pid").write_text(f"{left.pid}\n")
    (tmp_path / "sbm_jax" / "failed").touch()
    with futures.ThreadPoolExecutor() as pool:
        status = pool.submit(_launch, "tpu_pod.sh", "run", "--config=c.py", path=tmp_path, **TPU)
        assert left.wait(30) == -signal.SIGTERM
        assert status.result(60).returncode == 0
    assert len(calls()) == 2


@pytest.fixture
def module(tmp_path):
    """Return the environment in which `local_pod.sh` runs a module of the given text."""

    def make(text):
        (tmp_path / "member.py").write_text(
            f"import os, pathlib, sys, time\nnumber = int(os.environ['SBM_JAX_PROCESS_ID'])\n{text}\n"
        )
        return {"PYTHON": sys.executable, "MODULE": "member", "PYTHONPATH": str(tmp_path)}

    return make


def test_a_local_pod_runs_all_processes(tmp_path, module):
    env = module("(pathlib.Path(sys.argv[1]) / f'{number}').write_text(os.environ['SBM_JAX_NUM_PROCESSES'])")
    assert _launch("local_pod.sh", "3", "1", str(tmp_path), **env).returncode == 0
    assert [(tmp_path / str(number)).read_text() for number in range(3)] == ["3", "3", "3"]


def test_a_local_pod_tells_who_failed_and_waits_for_the_others(tmp_path, module):
    env = module("time.sleep(0 if number == 1 else 1)\nsys.exit(3 if number == 1 else 4 * number)")
    result = _launch("local_pod.sh", "3", "1", str(tmp_path), **env)
    assert result.returncode == 3
    assert result.stderr.splitlines() == ["process 1 ended with status 3", "process 2 ended with status 8"]


def test_a_local_pod_ends_when_all_processes_die_at_once(tmp_path, module):
    env = {**os.environ, **module("time.sleep(100)")}
    for _ in range(8):
        pod = subprocess.Popen(
            ["bash", ROOT / "launch" / "local_pod.sh", "2", "1", "x"], env=env, text=True, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
        while len(running := members(pod, "member")) < 2:
            assert time.monotonic() < deadline
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        _, told = pod.communicate(timeout=30)
        assert pod.returncode == 128 + signal.SIGKILL
        assert {f"process {number} ended with status 137" for number in (0, 1)} <= set(told.splitlines())
