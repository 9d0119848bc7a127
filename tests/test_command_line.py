"""The command line on data and terminals that are not as usual, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SIZES = {"a": 5, "b": 6, "c": 4}
FAST = [f"--config.{stage}.training.num_steps=5" for stage in ("autoencoder", "score", "classifier")]


def _write_data(directory):
    """Classes 1, 2, 4 and 8, a modality that is constant, and arrays that no modality is called after."""
    directory.mkdir()
    for seed, (split, num) in enumerate((("train", 200), ("test", 60))):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 4, num)
        arrays = {name: np.eye(size)[label] + 0.1 * rng.standard_normal((num, size)) for name, size in SIZES.items()}
        arrays["c"] = np.zeros((num, 4, 4, 1))
        np.savez(directory / f"{split}.npz", **arrays, label=2**label, filename=np.array(["1.png"] * num))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home directory, with data and a config file of one's own."""
    home = tmp_path_factory.mktemp("home")
    _write_data(home / "data")
    (home / "own.py").write_text(
        "from tests.robustness import tiny\n\ndef get_config():\n    return tiny.get_config('~/data')\n"
    )
    return home


def _run(home, *options, config="own.py", workdir="work", shell="", encoding=None):
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment |= {"PYTHONIOENCODING": encoding} if encoding else {}
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "sbm_jax.main",
        f"--config=~/{config}",
        f"--workdir=~/{workdir}",
        *options,
    ]
    command = ["sh", "-c", f'"$@" {shell}', "sh", *command] if shell else command
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=400)


def test_what_looks_wrong_is_told_before_training_and_home_is_found(home):
    done = _run(home, "--config.systems=sbm_vae,", *FAST, "--stages=classifier", workdir="classifier", shell=">&-")
    errors = done.stderr.decode()
    assert done.returncode == 0, errors
    assert (home / "classifier" / "stages" / "classifier").is_dir()
    assert not (home / "~").exists()
    told, _ = errors.split("stage classifier: ")
    assert "not used, because no modality has these names: filename." in told
    assert "'train/c': all rows are equal" in told


@pytest.mark.slow
def test_a_run_on_a_terminal_of_ascii(home):
    done = _run(home, "--config.systems=sbm_vae,", *FAST, encoding="ascii")
    assert done.returncode == 0, done.stderr.decode()
    printed = done.stdout.decode("ascii")
    assert "+-" in printed
    assert printed.endswith(f"Results: {home}/work/results.json\nReport:  {home}/work/report/index.html\n")
    metrics = json.loads((home / "work" / "results.json").read_text())["systems"]["sbm_vae"]["metrics"]
    assert sum(name.startswith("coverage/class_") for name in metrics) == 4


def test_an_error_in_a_config_is_one_line(home):
    (home / "broken.py").write_text("def get_config():\n    return sizes\n")
    done = _run(home, "--config.seed=3", config="broken.py")
    assert done.returncode == 1
    assert done.stderr.decode() == f"error: {home}/broken.py, line 2: NameError: name 'sizes' is not defined\n"
