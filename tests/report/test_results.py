import json

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import Estimate
from sbm_jax.report import results


def payload(value=0.5):
    estimate = Estimate(np.float32(value), 0.25, 10, "repeats")
    return {"systems": {"sbm_vae": {"metrics": {"coherence/given_1": estimate}, "not_available": {}}}}


def test_results_round_trip(tmp_path):
    path = tmp_path / "results.json"
    results.write_results(path, payload())
    metrics = results.read_results(path)["systems"]["sbm_vae"]["metrics"]
    assert metrics == {"coherence/given_1": {"value": 0.5, "std": 0.25, "n": 10, "spread": "repeats"}}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_numbers_that_are_not_finite_are_null():
    values = {"a": float("nan"), "b": jnp.array(jnp.inf), "c": np.array([1, 2]), "d": (np.bool_(True), None)}
    assert results.jsonable(values) == {"a": None, "b": None, "c": [1, 2], "d": [True, None]}


def test_a_failed_write_leaves_the_old_results(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    results.write_results(path, payload(0.5))

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full_disk)
    with pytest.raises(SbmError, match=r"results\.json: No space left on device.*--workdir"):
        results.write_results(path, payload(0.9))
    assert json.loads(path.read_text())["systems"]["sbm_vae"]["metrics"]["coherence/given_1"]["value"] == 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_file_in_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(SbmError, match="could not write"):
        results.write_results(tmp_path / "run" / "results.json", payload())


@pytest.mark.parametrize(("content", "message"), [(None, "Run the evaluation"), ("{", "not JSON"), ("[]", "systems")])
def test_unreadable_results(tmp_path, content, message):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SbmError, match=message):
        results.read_results(path)


def test_versions_and_device():
    versions = results.versions()
    assert versions["jax"] is not None
    assert set(versions) == {"python", "jax", "jaxlib", "flax", "optax", "orbax", "numpy", "sbm_jax"}
    device = results.device()
    assert device["count"] >= 1
    assert device["platform"]
