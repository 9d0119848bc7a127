"""The picture of samples has a panel for each system: a real row, and below it what is drawn given the other ones."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import sbm_jax
from benchmarks import sample_picture
from sbm_jax import experiment_config
from sbm_jax.config import plain
from sbm_jax.errors import SbmError
from sbm_jax.report.images import GIVEN_COLOR, cell, cell_size
from sbm_jax.system import Generated

SHADES = {"dark": 0.25, "light": 0.75}
NUM_SAMPLES = 2


class Drawer:
    """A model that draws everything in one shade, once it is given all but what it draws."""

    def __init__(self, modalities, shade):
        self.modalities, self.shade = modalities, shade

    def generate(self, data, targets, *, observed, num_samples, raw):
        number = len(self.modalities)
        np.testing.assert_array_equal(observed, ~np.eye(number, dtype=bool))
        assert not raw
        drawn = {}
        for place, modality in enumerate(self.modalities):
            drawn[modality.name] = np.repeat(data[modality.name][:, None], num_samples, axis=1)
            drawn[modality.name][place] = self.shade
        return Generated(drawn, None, {})


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run of two pictures, the models of which draw shades."""
    names = {"grey": 1, "colour": 3}
    for split, size in (("train", 40), ("test", 4)):
        rng = np.random.default_rng(size)
        arrays = {name: rng.integers(0, 256, (size, 8, 8, n), dtype=np.uint8) for name, n in names.items()}
        np.savez(tmp_path / f"{split}.npz", **arrays)
    config = experiment_config.parse_config(
        {
            "modalities": [
                {"name": name, "shape": (8, 8, channels), "latent_size": 4, "bounds": (0.0, 1.0)}
                for name, channels in names.items()
            ],
            "data": {"name": "arrays", "arrays": {"directory": str(tmp_path)}},
        }
    )
    (tmp_path / "config.json").write_text(json.dumps(plain(config)))
    monkeypatch.setattr(sbm_jax, "load", lambda workdir, system: Drawer(config.modalities, SHADES[system]))
    return tmp_path


def test_a_panel_for_each_system_begins_with_the_real_row(workdir, monkeypatch):
    out = workdir / "samples.png"
    options = ["--samples", str(NUM_SAMPLES), "--row", "1", "--systems", *SHADES]
    monkeypatch.setattr(sys, "argv", ["sample_picture", "--workdir", str(workdir), "--out", str(out), *options])
    sample_picture.main()
    pixels, size = np.asarray(Image.open(out)), cell_size([(8, 8, 1)])
    pitch = pixels.shape[0] // (NUM_SAMPLES + 1)
    assert pixels.shape == (3 * pitch, 4 * pitch + sample_picture.BETWEEN, 4)
    margin, real = (pitch - size) // 2, np.load(workdir / "test.npz")
    for panel, shade in zip((pixels[:, : 2 * pitch], pixels[:, -2 * pitch :]), SHADES.values(), strict=True):
        for column, name in enumerate(("grey", "colour")):
            cells = [
                panel[line * pitch + margin :][:size, column * pitch + margin :][:, :size]
                for line in range(NUM_SAMPLES + 1)
            ]
            np.testing.assert_array_equal(cells[0], cell(real[name][1], size))
            for drawn in cells[1:]:
                np.testing.assert_array_equal(drawn, cell(np.full((8, 8, 1), shade), size))
    framed = (pixels == GIVEN_COLOR).all(axis=-1)
    assert framed[:pitch].any()
    assert not framed[pitch:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"row": 4}, "--row is 4; expected 0 to 3"), ({"num_samples": 0}, "--samples is 0; expected 1 or more")],
)
def test_what_can_not_be_shown_is_refused(workdir, options, message):
    with pytest.raises(SbmError, match=message):
        sample_picture.picture(workdir, ("dark",), **options)


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(SbmError, match="holds no finished run"):
        sample_picture.picture(tmp_path)
