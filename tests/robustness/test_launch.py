"""The launch files: shell scripts without complaints, manifests that fit their schema."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

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
