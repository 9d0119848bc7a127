"""A method of a third party, through a config: trained, judged, loaded, with options of its own."""

import json
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import sbm_jax
from sbm_jax import config_file, experiment
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import CHOICES, apply_changes, complete, parse_config
from sbm_jax.system import Encodes, HasLikelihood
from sbm_jax.systems.method import Method
from tests.extension.method import NEAREST, NearestConfig
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

NAME = "tests.extension.method:NEAREST"


def _config(directory):
    config = get_config(str(directory))
    config.systems = (NAME,)
    config.methods.nearest = {"num_neighbours": 2}
    config.classifier.training.update(num_steps=300, checkpoint_every=100, validate_every=100)
    config.classifier.training.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The work directory of a run of a method that the package does not know, and its results."""
    path = tmp_path_factory.mktemp("nearest")
    write_data(path / "data")
    experiment.run(parse_config(_config(path / "data")), path / "work")
    return path, json.loads((path / "work" / "results.json").read_text())


def test_it_is_judged_under_its_name(trained):
    metrics = trained[1]["systems"]["nearest"]["metrics"]
    assert metrics["coherence/given_rest"]["value"] > 0.6  # by chance 0.25
    assert trained[1]["config"]["methods"]["nearest"] == {"num_neighbours": 2}


def test_a_loaded_one_answers_with_training_rows(trained):
    path, _ = trained
    with np.load(path / "data" / "train.npz") as arrays:
        rows = {name: arrays[name] for name in "abc"}
    model = sbm_jax.load(path / "work", "nearest")
    samples = model.generate({"a": rows["a"][:5]}, num_samples=8).data
    near = np.argsort(np.square(rows["a"][:5, None] - rows["a"][None]).sum(axis=-1), axis=1)[:, :2]
    for name in "bc":
        for row, found in enumerate(samples[name]):
            np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(rows[name][near[row]], axis=0))
    assert not isinstance(model.system, Encodes | HasLikelihood)


def test_its_options_are_overridden_and_checked_like_others(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text("from tests.extension import test_method\ndef get_config():\n    return test_method._config('x')\n")

    def parsed(*overrides):
        values, argv = flags.FlagValues(), ["main", f"--config={path}", *overrides]
        monkeypatch.setattr(sys, "argv", argv)
        config = config_flags.DEFINE_config_file("config", flag_values=values)
        values["config"].parser = config_file.ConfigParser("config", complete, CHOICES)
        values(argv)
        return parse_config(config.value)

    assert parsed("--config.methods.nearest.num_neighbours=3").methods["nearest"] == NearestConfig(3)
    varied = apply_changes(parsed(), {"methods.nearest.num_neighbours": 7})
    assert varied.methods["nearest"].num_neighbours == 7
    without = apply_changes(parsed(), {"systems": ["sbm_vae"]})
    added = {"methods.nearest.num_neighbours": 3, "systems": ("sbm_vae", NAME)}  # in any order
    assert apply_changes(without, added).methods["nearest"] == NearestConfig(3)
    assert apply_changes(without, {"systems": [NAME]}).methods["nearest"] == NearestConfig()
    metrics = apply_changes(without, {"evaluation.metrics.f1": {"modality": "a"}}).evaluation.metrics
    assert metrics["f1"]["modality"] == "a"
    assert "nearest" not in apply_changes(parsed(), {"systems": ["sbm_vae"]}).methods
    with pytest.raises(SbmError, match="Did you mean 'num_neighbours'"):
        parsed("--config.methods.nearest.num_neighbour=3")
    with pytest.raises(SbmError, match=r"methods.nearest.num_neighbours is 0; expected 1 or more"):
        parsed("--config.methods.nearest.num_neighbours=0")


def test_a_method_that_is_not_there_is_named():
    for name, message in (
        ("tests.extension.method:NEARST", "has no attribute 'NEARST'"),
        ("tests.extension.nothing:NEAREST", "No module named"),
        ("tests.extension.method:NearestConfig", "expected one of type .*Method"),
    ):
        with pytest.raises(SbmError, match=message):
            parse_config({**_config("x").to_dict(), "systems": (name,)})


def test_groups_of_options_have_one_owner(monkeypatch):
    other = Method("other", NEAREST.make, {"mld": NearestConfig})
    monkeypatch.setattr("tests.extension.method.OTHER", other, raising=False)
    with pytest.raises(SbmError, match=r"would be config.methods.mld, a group of another method"):
        parse_config({**_config("x").to_dict(), "systems": ("tests.extension.method:OTHER",)})
