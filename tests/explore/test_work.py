"""What the explorer does with a trained work directory: rows, samples, and what it refuses."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

import sbm_jax
from sbm_jax.errors import SbmError
from sbm_jax.explore import serving
from sbm_jax.explore.work import Work
from tests.all_kinds import NAMES
from tests.explore import explored


@pytest.fixture(scope="module")
def work(all_kinds_run):
    return Work(all_kinds_run)


@pytest.mark.slow
def test_what_can_be_chosen_is_what_the_run_has(work):
    assert work.choices.systems == ("sbm_vae_m", "sbm_vae")
    assert work.choices.modalities == NAMES
    assert (work.choices.num_rows, work.lacks_rows) == (6, "")
    work.choices.check(work.defaults)
    assert set(work.row(5)) == {*NAMES}
    assert work.row(None) == {}
    with pytest.raises(SbmError, match="row is 6; expected 0 to 5"):
        work.row(6)


@pytest.mark.slow
def test_samples_are_those_of_the_library(work, all_kinds_run):
    """Of a held-out row, and of one's own data in place of a part of it."""
    settings = dataclasses.replace(work.defaults, row=2, given=("photo", "caption"), targets=("level", "photo"), seed=3)
    found = work.draw(settings, {"caption": "a red bird"})
    assert found.compiled
    assert found.info["network_evaluations"] > 0
    assert (found.given["caption"], set(found.samples)) == ("a red bird", {"level"})
    model = sbm_jax.load(all_kinds_run)
    rows = {"photo": [work.row(2)["photo"]], "caption": ["a red bird"]}
    expected = model.generate(rows, ["level"], num_samples=settings.samples, seed=3)
    np.testing.assert_array_equal(found.samples["level"], expected.data["level"][0])
    assert not work.draw(settings, {}).compiled


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": None}, "'photo' is ticked as given, but has no data"),
        ({"given": NAMES}, "there is nothing to generate"),
        ({"targets": ()}, "there is nothing to generate"),
        ({"system": "sbm_vae", "strength": 2.0}, "has no guidance"),
        ({"system": "mopoe"}, "system is 'mopoe'; expected one of"),
        ({"row": 6}, "row is 6; expected 0 to 5"),
    ],
)
def test_what_can_not_be_drawn_is_told(work, changes, message):
    with pytest.raises(SbmError, match=message):
        work.draw(dataclasses.replace(work.defaults, **changes), {})


@pytest.mark.slow
def test_without_its_data_a_run_is_explored_by_files(all_kinds_run, tmp_path):
    shutil.copytree(all_kinds_run, tmp_path / "work")
    config = json.loads((tmp_path / "work" / "config.json").read_text())
    config["data"]["folders"]["directory"] = str(tmp_path / "moved")
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    work = Work(tmp_path / "work")
    assert "moved" in work.lacks_rows
    assert (work.choices.num_rows, work.defaults.row, work.defaults.given) == (0, None, ())
    assert work.row(None) == {}


def test_without_gradio_the_extra_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "sbm_jax.explore.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with (
        pytest.raises(SbmError, match=r"needs Gradio, which is not installed .* pip install 'sbm_jax\[explore\]'"),
        serving.served(explored.Work()),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_addresses_of_this_machine_alone_are_known(host, alone):
    assert serving._is_loopback(host) == alone
