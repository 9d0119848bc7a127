"""The command line and library use, end to end on a tiny experiment."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_configs import load_config

import sbm_jax
from sbm_jax import experiment, experiment_config, judges
from sbm_jax.config import plain
from sbm_jax.errors import SbmError
from tests.robustness.kill import TIMES

ROOT = Path(__file__).parents[1]


def tiny(**changes):
    """Return an experiment on arrays of one's own: an image and a vector that tells its brightness."""
    config = {
        "name": "tiny",
        "systems": ["sbm_vae", "sbm_rae"],
        "modalities": [
            {"name": "image", "shape": (8, 8, 1), "latent_size": 4, "codec": "patch", "bounds": (0.0, 1.0)},
            {"name": "level", "shape": (4,), "latent_size": 4, "codec": {"name": "mlp"}, "likelihood": "categorical"},
        ],
        "data": {"name": "arrays"},
        "autoencoder": {"training": {"num_steps": 4, "batch_size": 8}, "network": {"widths": (8,)}},
        "score": {
            "training": {"num_steps": 4, "batch_size": 8, "optimizer": {"ema_decay": 0.9}},
            "network": {"width": 32, "depth": 1},
        },
        "classifier": {"training": {"num_steps": 4, "batch_size": 8}, "widths": (4,), "hidden": 8},
        "sampler": {"num_steps": 3},
        "evaluation": {"num_examples": 8, "num_unconditional": 8, "batch_size": 8, "num_repeats": 2},
    }
    return experiment_config.parse_config({**config, **changes})


def write_data(directory):
    directory.mkdir()
    rng = np.random.default_rng(0)
    for split, size in (("train", 40), ("test", 16)):
        label = np.arange(size) % 4
        image = (label[:, None, None, None] * 60 + rng.integers(0, 40, (size, 8, 8, 1))).astype(np.uint8)
        np.savez(directory / f"{split}.npz", image=image, level=np.eye(4, dtype=np.float32)[label], label=label)
    return {"name": "arrays", "arrays": {"directory": str(directory)}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, which no test changes."""
    path = tmp_path_factory.mktemp("run")
    config = tiny(data=write_data(path / "data"))
    results = experiment.run(config, path / "work")
    return config, path / "work", results


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the finished run."""
    config, workdir, results = trained
    return config, shutil.copytree(workdir, tmp_path / "work"), results


def test_results_have_the_documented_shape(finished):
    _, workdir, results = finished
    written = json.loads((workdir / "results.json").read_text())
    assert written["systems"].keys() == results["systems"].keys() == {"sbm_vae", "sbm_rae"}
    for system in written["systems"].values():
        for name in ("coherence/given_rest", "coherence/given_1", "coherence/unconditional_all", "classifier/accuracy"):
            assert system["metrics"][name].keys() == {"value", "std", "n", "spread"}
        assert system["metrics"]["sampling/network_evaluations"]["value"] == 3
    assert {"config", "versions", "device"} <= written.keys()
    assert "<html" in (workdir / "report" / "index.html").read_text()


def test_running_again_trains_nothing_and_gives_the_same_numbers(finished, monkeypatch):
    config, workdir, results = finished
    monkeypatch.setattr("sbm_jax.training.loop.make_train_steps", None)
    assert _untimed(experiment.run(config, workdir)) == _untimed(results)


def test_another_config_is_refused_and_nothing_is_lost(finished):
    config, workdir, _ = finished
    before = (workdir / "results.json").read_bytes()
    autoencoder = dataclasses.replace(config.autoencoder, beta=0.7)
    with pytest.raises(SbmError, match=r"autoencoder.beta: was 1.0, is 0.7"):
        experiment.run(dataclasses.replace(config, autoencoder=autoencoder), workdir)
    assert (workdir / "results.json").read_bytes() == before


def test_the_sampler_may_change_in_a_trained_directory(finished):
    config, workdir, _ = finished
    sampler = dataclasses.replace(config.sampler, num_steps=5)
    results = experiment.run(dataclasses.replace(config, sampler=sampler), workdir)
    assert results["systems"]["sbm_vae"]["metrics"]["sampling/network_evaluations"]["value"] == 5


VARIATIONS = [
    {"study": "steps", "value": "5", "changes": {"sampler.num_steps": 5, "systems": ["sbm_vae"]}},
    {
        "study": "modalities",
        "value": "1",
        "changes": {"joint": ["image"], "systems": ["sbm_vae"], "evaluation.metrics.coherence.sets": ["unconditional"]},
    },
]


@pytest.fixture(scope="module")
def trained_variations(trained, tmp_path_factory):
    """A finished run with variations, which no test changes."""
    config, workdir, _ = trained
    copy = shutil.copytree(workdir, tmp_path_factory.mktemp("varied") / "work")
    config = tiny(data=plain(config.data), variations=VARIATIONS)
    return config, copy, experiment.run(config, copy)


@pytest.fixture
def varied(trained_variations, tmp_path):
    """A copy of the finished run with variations."""
    config, workdir, results = trained_variations
    return config, shutil.copytree(workdir, tmp_path / "varied"), results


def test_variations_change_what_they_name_and_share_the_rest(varied):
    _, workdir, results = varied
    steps, modalities = results["variations"]
    assert list(steps["systems"]) == ["sbm_vae"]
    assert steps["systems"]["sbm_vae"]["metrics"]["sampling/network_evaluations"]["value"] == 5
    trained = {path.parent.name: {p.name for p in path.iterdir()} for path in workdir.glob("variations/*/stages")}
    assert trained == {"modalities_1": {"score_sbm_vae"}}
    metrics = modalities["systems"]["sbm_vae"]["metrics"]
    assert "reconstruction/mse/image" in metrics
    assert "reconstruction/mse/level" not in metrics
    assert results["to_come"] == []
    page = (workdir / "report" / "index.html").read_text()
    assert "modalities" in page
    assert "Still to come" not in page


def test_aligned_latents_of_a_part_know_of_that_part_only():
    config = tiny(joint=("image",))
    assert experiment_config.make_system(config, "sbm_vae").encoded == config.modalities
    aligned = dataclasses.replace(config.autoencoder, alignment=1.0, aligned_size=2)
    assert experiment_config.make_system(dataclasses.replace(config, autoencoder=aligned), "sbm_vae").encoded == ()


def test_finished_evaluations_are_read(varied, monkeypatch):
    config, workdir, results = varied
    monkeypatch.setattr("sbm_jax.judges.evaluate", None)
    again = experiment.run(config, workdir)
    assert again["systems"] == results["systems"]
    assert [v["systems"] for v in again["variations"]] == [v["systems"] for v in results["variations"]]


@pytest.mark.slow
def test_a_damaged_evaluation_is_made_again(varied, monkeypatch):
    config, workdir, results = varied
    (kept,) = (workdir / "evaluations").glob("sbm_rae_*.npz")
    kept.write_bytes(b"damaged")
    made, evaluate = [], judges.evaluate
    monkeypatch.setattr(judges, "evaluate", lambda *args, **kwargs: made.append(1) or evaluate(*args, **kwargs))
    again = experiment.run(config, workdir)
    assert len(made) == 1
    assert _untimed(again) == _untimed(results)
    assert kept.stat().st_size > 1000


def _untimed(results):
    """The metrics of every system, but for those that tell a time."""
    return {
        name: {metric: value for metric, value in system["metrics"].items() if metric not in TIMES}
        for name, system in results["systems"].items()
    }


def test_an_interrupted_run_lists_what_is_to_come(finished, monkeypatch):
    config, workdir, _ = finished
    config = dataclasses.replace(config, variations=tiny(variations=VARIATIONS).variations)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sbm_jax.experiment._vary", stop)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, workdir)
    written = json.loads((workdir / "results.json").read_text())
    assert [variation["study"] for variation in written["to_come"]] == ["steps", "modalities"]
    assert "Still to come" in (workdir / "report" / "index.html").read_text()


@pytest.mark.parametrize("study", ["../outside", "a/b", ""])
def test_variations_stay_in_the_work_directory(study):
    with pytest.raises(SbmError, match="letters, digits"):
        tiny(variations=[{"study": study, "value": "/b", "changes": {}}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scor.network.width": 64}, "no group 'scor'"),
        ({"score.network.widht": 64}, "Did you mean 'width'"),
        ({"score.network.width": "wide"}, "width must be int"),
        ({"data.name": "polymnist"}, "which variations share"),
        ({"classifier.hidden": 4}, "which variations share"),
        ({"evaluation.num_examples": 17}, "has 16 rows"),
        ({"evaluation.metrics.iou": {"modality": "image"}}, "'image', whose data are not binary"),
        ({"sampler.solver": "dpm"}, "unknown solver"),
        ({"joint": ["imag"]}, "Did you mean 'image'"),
        ({"systems": "sbm_vae"}, "config.systems is 'sbm_vae'; expected a tuple of names"),
        ({"evaluation.metric.f1": {}}, "no group 'metric'"),
        ({"evaluation.metrics.f2": {}}, "unknown metric .*'f2'"),
    ],
)
def test_bad_variations_are_named_before_training(tmp_path, changes, message):
    data, variations = write_data(tmp_path / "data"), [{"study": "a", "value": "b", "changes": changes}]
    with pytest.raises(SbmError, match=message):
        experiment.run(tiny(data=data, variations=variations), tmp_path / "work")
    assert not (tmp_path / "work" / "stages").exists()


def test_a_trained_directory_generates(trained):
    _, workdir, _ = trained
    model = sbm_jax.load(workdir, "sbm_rae")
    image = np.zeros((3, 8, 8, 1), np.uint8)
    out = model.generate({"image": image}, ["level"], num_samples=2, seed=1)
    assert out.data.keys() == {"level"}
    assert out.data["level"].shape == (3, 2, 4)
    np.testing.assert_array_equal(
        model.generate({"image": image}, ["level"], num_samples=2, seed=1).data["level"], out.data["level"]
    )
    assert model.generate({}, batch_size=5).data["image"].shape == (5, 1, 8, 8, 1)


@pytest.mark.parametrize(
    ("data", "targets", "message"),
    [
        ({"imagee": np.zeros((1, 8, 8, 1))}, None, "unknown modality 'imagee'. Did you mean 'image'"),
        ({"image": np.zeros((1, 8, 8, 1))}, ["levels"], "unknown modality 'levels'"),
        ({"image": np.zeros((1, 9, 8, 1))}, None, "shape"),
        ({"image": np.full((1, 8, 8, 1), np.nan)}, None, "NaN"),
        ({"image": np.full((1, 8, 8, 1), 200.0)}, None, "expects 0 to 1"),
        ({"image": np.zeros((1, 8, 8, 1)), "level": np.zeros((2, 4))}, None, "same number of rows"),
        ({}, None, "give batch_size"),
    ],
)
def test_bad_input_to_generate_is_named(trained, data, targets, message):
    with pytest.raises(SbmError, match=message):
        sbm_jax.load(trained[1]).generate(data, targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems": ["sbm_vaee"]}, "unknown system.*Did you mean 'sbm_vae'"),
        ({"data": {"name": "arays"}}, "Did you mean 'arrays'"),
        ({"sampler": {"solver": "dpm"}}, "unknown solver"),
        ({"sampler": {"stepz": 3}}, "unknown field of config.sampler"),
        ({"data": {"name": "arrays", "arrays": {"directory": "/nowhere"}}}, "nowhere"),
        ({"modalities": []}, "at least one modality"),
        ({"published": "smb"}, "Did you mean 'sbm'"),
        ({"evaluation": {"metrics": {"frechet": {"modalities": ["imag"]}}}}, "Did you mean 'image'"),
        ({"evaluation": {"metrics": {"coherense": {}}}}, "Did you mean 'coherence'"),
        ({"evaluation": {"metrics": {"f1": {"treshold": 0.5}}}}, "Did you mean 'threshold'"),
        ({"systems": ["sbm_vae_m"]}, "probability_alone"),
        ({"methods": {"sbm_f": {"probability_drop": 2.0}}}, "methods.sbm_f.probability_drop"),
        ({"methods": {"sbm_g": {}}}, "unknown group of config.methods"),
        ({"systems": ["sbm_jax.errors:SbmError"]}, "expected one of type .*Method"),
    ],
)
def test_bad_experiments_are_named(tmp_path, change, message):
    with pytest.raises(SbmError, match=message):
        experiment.run(tiny(**change), tmp_path / "work")


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(SbmError, match="holds no finished run"):
        sbm_jax.load(tmp_path)


def _main(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "sbm_jax.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/quickstart.py", "--config.scor.num_steps=1"], "Did you mean 'score'"),
        ([], "for example --config=configs/quickstart.py"),
        (["--config=configs/none.py"], "cannot be read"),
        (["--config=configs/quickstart.py:tiny"], "unknown variant 'tiny'"),
        (["--config=configs/quickstart.py", "--config.sampler.solver=ddin"], "Did you mean 'ddim'"),
        (["--config=configs/quickstart.py", "--workdir=/proc/none"], "/proc/none"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(arguments, message):
    done = _main(*arguments)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert errors[-1].startswith("error: ")
    assert message in errors[-1]
    assert "Traceback" not in done.stderr


def test_quickstart_is_what_readme_shows():
    config = experiment_config.parse_config(load_config("quickstart.py"))
    assert config.systems == ("sbm_vae_m_diffusion", "sbm_vae_m")
    assert len(config.modalities) == 5
