"""The command `sbm-jax` on a run of every kind of files, and what it says to bad input."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import sbm_jax
from sbm_jax import commands, parallel, report
from sbm_jax.command_line import COMMANDS, main
from sbm_jax.data import row_files
from tests.all_kinds import NAMES

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "numpy", "absl", "ml_collections", "rich", "gradio")


def _python(code, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, **options)


def _fails(capsys, *arguments, status=1):
    """Return the one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    told = str(ended.value.code) if isinstance(ended.value.code, str) else capsys.readouterr().err.strip()
    assert (1 if isinstance(ended.value.code, str) else ended.value.code) == status
    assert "\n" not in told
    return told


# MARK: Help and errors


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    """Which is what makes it quick."""
    _helps("from sbm_jax.command_line import main; main(sys.argv[1:] or None)", *arguments)


def test_help_of_the_module_imports_nothing_heavy():
    _helps("import runpy; runpy.run_module('sbm_jax.main', run_name='__main__')", "--help")


def _helps(command, *arguments):
    code = f"""
import sys
try:
    {command}
except SystemExit as ended:
    assert not ended.code
assert not {{*{HEAVY!r}}} & sys.modules.keys()
"""
    done = _python(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: sbm-jax")


def test_the_overview_tells_every_command(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {name}" in told for name in COMMANDS)


def test_parts_in_the_current_folder_are_found(monkeypatch):
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])  # as a console script begins
    main(["--version"])
    assert sys.path[-1] == ""


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"sbm_jax {sbm_jax.__version__}\n"


def test_wrong_options_are_told_in_one_line(capsys, tmp_path):
    assert _fails(capsys, "exprot").startswith("error: unknown command 'exprot'. Did you mean 'export'?")
    told = _fails(capsys, "info", status=2)
    assert told == "error: the following arguments are required: --workdir. See sbm-jax info --help."
    told = _fails(capsys, "generate", "--workdir=a", "--output=b", "--rows=x", status=2)
    assert told == "error: argument --rows: invalid int value: 'x'. See sbm-jax generate --help."
    assert "holds no finished run" in _fails(capsys, "generate", f"--workdir={tmp_path}", f"--output={tmp_path}/new")
    assert "holds no finished run" in _fails(capsys, "explore", f"--workdir={tmp_path}")
    assert "is not a work directory" in _fails(capsys, "info", f"--workdir={tmp_path}")


def test_train_is_the_main_of_the_package(tmp_path):
    code = "from sbm_jax.command_line import main; main()"
    done = _python(code, "train", "--config=nothing.py", "--profile=true", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nothing.py" in done.stderr


# MARK: On a run


@pytest.mark.slow
def test_info_tells_what_is_there(all_kinds_run, capsys, tmp_path):
    main(["info", f"--workdir={all_kinds_run}"])
    told = capsys.readouterr().out
    for name in (*NAMES, "sbm_vae_m", "autoencoder_vae_photo", "trained", "complete", "Report:   none yet"):
        assert name in told
    (tmp_path / "stages" / "one").mkdir(parents=True)
    recipe = {"fingerprint": "", "num_steps": 5, "settings": {}}
    (tmp_path / "stages" / "one" / "stage.json").write_text(json.dumps(recipe))
    estimate = {"value": 0.25, "std": None, "n": 4, "spread": ""}
    systems = {"sbm_vae": {"metrics": {"coherence/given_rest": estimate}, "not_available": {}}}
    report.write_results(tmp_path / "results.json", {"systems": systems, "versions": {"jax": "1.2.3"}})
    main(["info", f"--workdir={tmp_path}"])
    told = capsys.readouterr().out
    for part in ("training is not finished", "nothing saved", "coherence/given_rest", "0.25", "jax 1.2.3"):
        assert part in told


@pytest.mark.slow
def test_generate_writes_the_samples_that_the_library_returns(all_kinds_run, capsys, tmp_path):
    photos, output = all_kinds_run.parent / "data" / "test" / "photo", tmp_path / "new"
    given = [f"--given=photo={photos / name}.png" for name in ("row00", "row03")]
    texts = [f"--text=color={name}" for name in ("red", "blue")]
    main(["generate", f"--workdir={all_kinds_run}", f"--output={output}", *given, *texts, "--samples=2", "--seed=5"])
    assert "evaluations of the network" in capsys.readouterr().out
    model = sbm_jax.load(all_kinds_run)
    known = {modality.name: modality for modality in model.modalities}
    rows = [row_files.read_row(known["photo"], photos / f"{name}.png") for name in ("row00", "row03")]
    expected = model.generate({"photo": rows, "color": ["red", "blue"]}, num_samples=2, seed=5)
    assert {path.name for path in output.iterdir()} == expected.data.keys() == {*NAMES} - {"photo", "color"}
    for name, samples in expected.data.items():
        modality = known[name]
        files = [output / name / f"{row}_{i}{row_files.suffix(modality)}" for row in ("row00", "row03") for i in (0, 1)]
        assert sorted((output / name).iterdir()) == files
        for path, sample in zip(files, samples.reshape(4, *samples.shape[2:]), strict=True):
            again = row_files.write_row(modality, sample, tmp_path / "again")
            assert path.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_generate_refuses_what_does_not_fit(all_kinds_run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "load", functools.cache(commands.load))  # which takes most of the time
    test = all_kinds_run.parent / "data" / "test"
    photo, photos, masks = test / "photo" / "row00.png", test / "photo", test / "mask"
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for options, expected in (
        ([f"--output={tmp_path}/full"], "exists and is not empty; expected a new directory"),
        (["--given=photo"], "--given is 'photo'; expected NAME=PATH"),
        ([f"--given=phto={photo}"], "unknown modality (--given) 'phto'. Did you mean 'photo'?"),
        ([f"--given=photo={tmp_path}/no.png"], "no.png cannot be read as an image"),
        ([f"--given=photo={tmp_path}/empty"], "empty has no files of modality 'photo'"),
        ([f"--given=photo={photos}", f"--given=photo={photos}"], "--given names 'photo' twice"),
        ([f"--given=photo={photo}", f"--given=photo={photo}"], "do not all differ in their names"),
        ([f"--given=photo={photos}", f"--given=mask={masks}/row00.png"], "must have the same number of rows"),
        ([f"--given=mask={photo}"], "row00.png has shades of grey"),
        (["--text=photo=red"], "modality 'photo' takes no text"),
        (["--text=color=purple"], "has 'purple' in row 0; modality 'color' knows 'red', 'green', 'blue'"),
        (["--solver=eul"], "unknown solver 'eul'"),
        (["--steps=0"], "num_steps must be at least 1"),
        (["--samples=0"], "num_samples is 0; expected 1 or more"),
        (["--rows=0"], "--rows is 0; expected 1 or more"),
        (["--rows=2", "--text=color=red"], "--rows=2 is for samples given nothing"),
        (["--targets", "phot"], "unknown modality 'phot'"),
        (["--system=sbm"], "unknown system"),
        (["--system=sbm_vae", "--strength=2"], "has no guidance"),
        (["--strength=-1"], "strength is -1.0; expected 0 or more"),
    ):
        output = [] if any(option.startswith("--output") for option in options) else [f"--output={tmp_path}/new"]
        told = _fails(capsys, "generate", f"--workdir={all_kinds_run}", *output, *options)
        assert expected in told, told
        assert not (tmp_path / "new").exists()


ALONE = """
import json, sys
OTHERS = ("sbm_jax", "flax", "optax", "orbax", "ml_collections", "clu", "chex", "grain", "tensorflow_datasets")
sys.modules.update(dict.fromkeys(OTHERS))  # which makes each import of them fail
import numpy as np
program_file, rows, samples = sys.argv[1:]
told = json.load(open(program_file))
scope = {}
for line in told["python"]:
    exec(line, scope)
    if line.startswith("data = "):
        scope["data"] = {name: array for name, array in np.load(rows).items()}
np.savez(samples, **scope["samples"])
assert not [name for name in sys.modules if name.split(".")[0] in OTHERS and sys.modules[name] is not None]
"""
"""Runs an exported program by the lines that are written beside it, without this package or any but JAX."""


@pytest.mark.slow
@pytest.mark.parametrize("weights", [[], ["--weights=weights.safetensors"]], ids=["inside", "beside"])
def test_an_exported_sampler_runs_without_the_package(all_kinds_run, monkeypatch, capsys, tmp_path, weights):
    monkeypatch.chdir(tmp_path)
    options = ["--given", "photo", "caption", "--targets", "mask", "level", "color", "--rows=2", "--samples=3"]
    main(["export", f"--workdir={all_kinds_run}", "--output=sampler.jaxexport", *options, *weights])
    assert "How to call it: sampler.json" in capsys.readouterr().out
    mesh = parallel.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "data_mesh", lambda: mesh)  # as the program runs: where rows are split it is rounded
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    model, rng = sbm_jax.load(all_kinds_run), np.random.default_rng(0)
    data = {"photo": rng.random((2, 8, 8, 3), np.float32), "caption": np.array([[2, 3, 0, 0, 0], [3, 0, 0, 0, 0]])}
    expected = dict(model.generate(data, ["mask", "level", "color"], num_samples=3, seed=0, raw=False).data)
    assert next(m for m in model.modalities if m.name == "level").format.name == "standardized"
    expected["level"] = model.generate(data, ["level"], num_samples=3, seed=0).data["level"]  # in its own units
    np.savez(tmp_path / "rows.npz", photo=data["photo"], caption=data["caption"].astype(np.int32))
    done = _python(ALONE, "sampler.json", "rows.npz", "samples.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "samples.npz") as samples:
        assert {*samples} == {"mask", "level", "color"}
        for name, sample in samples.items():
            np.testing.assert_allclose(sample, expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_an_exported_sampler_takes_numbers_in_their_units(all_kinds_run, monkeypatch, tmp_path):
    mesh = parallel.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "data_mesh", lambda: mesh)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    model = sbm_jax.load(all_kinds_run)
    model.export(tmp_path / "sampler.jaxexport", given=["level"], targets=["photo"], num_rows=2)
    program = jax.export.deserialize(bytearray((tmp_path / "sampler.jaxexport").read_bytes()))
    level = np.array([[5.0, 3.0, 7.0], [4.0, 6.0, 9.0]], np.float32)
    expected = model.generate({"level": level}, ["photo"], seed=0, raw=False).data["photo"]
    np.testing.assert_allclose(program.call(np.uint32(0), {"level": level})["photo"], expected, rtol=0.0, atol=1e-5)


@pytest.mark.slow
def test_an_export_is_written_for_other_platforms_and_checked(all_kinds_run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(commands, "load", functools.cache(commands.load))
    monkeypatch.chdir(tmp_path)
    model = sbm_jax.load(all_kinds_run)
    told = json.loads(model.export("a.bin", targets=["level"], platforms=["tpu", "cuda"]).read_text())
    assert told["platforms"] == ["tpu", "cuda"]
    assert told["returned"]["level"]["shape"] == [1, 1, 3]
    assert told["given"] == {}
    for options, expected in (
        (["--platforms", "gpu"], "unknown platform 'gpu'"),
        (["--given", "phot"], "unknown modality 'phot'"),
        (["--given", *NAMES], "expected a list of one or more of"),
        (["--rows=0"], "num_rows is 0; expected 1 or more"),
        (["--output=b.json"], "must be three different files"),
        (["--system=sbm_vae", "--strength=1"], "has no guidance"),
    ):
        told = _fails(capsys, "export", f"--workdir={all_kinds_run}", "--output=b.bin", *options)
        assert expected in told, told
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("b")] == []
