"""A data set that the package does not know is named in a config, checked and trained on."""

import numpy as np
import pytest

from sbm_jax import data
from sbm_jax.config import build
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training.stages import run_stages
from sbm_jax.types import Modality, TrainingConfig

MODALITIES = (Modality("point", (2,), 3, "mlp"), Modality("angle", (1,), 2, "mlp"))
CIRCLE = {"name": "tests.extension.dataset:DATASET", "options": {"num_rows": 20, "radius": 2}}


def load(tmp_path, **changes):
    return data.load(build(data.DataConfig, {**CIRCLE, **changes}), tmp_path)


def test_it_is_trained_on(tmp_path):
    dataset = data.check(load(tmp_path), MODALITIES)
    assert dataset.settings == {"name": CIRCLE["name"], "num_rows": 20, "radius": 2.0}
    np.testing.assert_allclose(np.linalg.norm(dataset.train.data["point"], axis=1), 2, rtol=1e-6)
    config = AutoencoderConfig(TrainingConfig(3, 8), AutoencoderNetworkConfig((8,)))
    space = LatentSpace(MODALITIES, config)
    products = run_stages(space.stages(dataset), tmp_path, seed=0)
    assert space.bank(products, "train")["mean"].shape == (20, 2, 3)


def test_only_the_modalities_asked_for_are_returned(tmp_path):
    assert data.load(build(data.DataConfig, CIRCLE), tmp_path, ["angle"]).train.data.keys() == {"angle"}


def test_its_options_are_checked(tmp_path):
    with pytest.raises(SbmError, match=r"field of data\.options: 'size'"):
        load(tmp_path, options={"size": 3})
    with pytest.raises(SbmError, match=r"data\.options\.num_rows is missing"):
        load(tmp_path, options={})
