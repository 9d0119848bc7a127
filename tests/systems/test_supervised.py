"""Supervised networks: what they predict, what they leave alone, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.denoisers import DenoiserConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.methods import METHODS
from sbm_jax.systems.supervised import Predictor, Supervised, SupervisedConfig
from sbm_jax.types import CodecConfig, Dataset, Modality, Split, TrainingConfig

PHOTO = Modality("photo", (8, 8, 3), 4, CodecConfig("patch"), bounds=(0.0, 1.0))
MASK = Modality("mask", (8, 8, 1), 4, CodecConfig("patch"), likelihood="bernoulli")
TAGS = Modality("tags", (5,), 3, CodecConfig("mlp"), likelihood="bernoulli")
WORDS = Modality("words", (6,), 3, CodecConfig("tokens"), likelihood="categorical", vocabulary_size=7)
MODALITIES = (PHOTO, MASK, TAGS, WORDS)
CONFIG = SupervisedConfig(pictures=DenoiserConfig(width=8, depth=1), training=TrainingConfig(2, 4))
NETWORK = AutoencoderNetworkConfig((8,))
SYSTEM = Supervised("supervised", MODALITIES, CONFIG, NETWORK)


def _data(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "photo": rng.random((rows, 8, 8, 3), dtype=np.float32),
        "mask": (rng.random((rows, 8, 8, 1)) > 0.5).astype(np.float32),
        "tags": (rng.random((rows, 5)) > 0.5).astype(np.float32),
        "words": rng.integers(1, 7, (rows, 6)).astype(np.int32),
    }


def _products(system=SYSTEM):
    return {name: predictor.init(jax.random.key(1)) for name, predictor in system.predictors.items()}


def _generate(observed, system=SYSTEM, data=None, num_samples=2):
    data = _data() if data is None else data
    run = jax.jit(
        lambda data: system.generate(
            _products(system), jax.random.key(0), data, jnp.array(observed), SamplerOptions(), num_samples
        )
    )
    return run(data)


def test_it_predicts_from_its_source():
    found = _generate([True, False, False, False])
    for name in ("mask", "tags"):
        values = np.asarray(found.data[name])
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_array_equal(values[:, 0], values[:, 1])
        assert values.std(axis=0).max() > 0
    np.testing.assert_array_equal(found.data["photo"][:, 0], _data()["photo"])
    assert (np.asarray(found.data["words"]) == -1).all()
    assert found.info["diverged"] == 0


def test_it_answers_nothing_without_its_source():
    observed = np.zeros((6, 4), bool)
    observed[:3, 0] = observed[:, 1] = True
    found = _generate(observed)
    assert np.isfinite(found.data["tags"][:3]).all()
    assert np.isnan(found.data["tags"][3:]).all()
    np.testing.assert_array_equal(found.data["mask"][:, 0], _data()["mask"])
    assert np.isnan(_generate([False] * 4, data={}).data["mask"]).all()


def test_what_is_given_besides_changes_nothing():
    alone, beside = _generate([True, False, False, False]), _generate([True, True, False, True])
    np.testing.assert_array_equal(alone.data["tags"], beside.data["tags"])


@pytest.mark.parametrize("target", [MASK, TAGS, dataclasses.replace(MASK, likelihood="gaussian", scale=0.5)])
def test_the_loss_is_that_of_the_likelihood(target):
    predictor = Predictor(PHOTO, target, CONFIG, NETWORK)
    params, data = predictor.init(jax.random.key(0)), _data()
    y = data[target.name]
    output = np.asarray(predictor.output(params, data["photo"]), np.float64)
    if target.likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-output))
        expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    else:
        expected = 0.5 * ((y - output) / 0.5) ** 2 + np.log(0.5) + 0.5 * np.log(2 * np.pi)
    expected = expected.reshape(len(y), -1).sum(axis=1)
    np.testing.assert_allclose(predictor.loss(params, data["photo"], y), expected, rtol=1e-5)


def test_rows_without_both_teach_nothing():
    present = {name: np.ones(6, bool) for name in _data()}
    present["mask"][2], present["photo"][4], present["tags"][:] = False, False, False
    other = _data()
    other["mask"][2], other["photo"][4] = 0.0, 0.0
    losses = []
    for data in (_data(), other):
        split = Split(data, present=present)
        stage = SYSTEM.stages(Dataset(split, split, split, {}, {}))[0]
        assert stage.name == "supervised_photo_to_mask"
        rows = stage.rows({})
        losses.append(stage.loss(stage.init(jax.random.key(0), {}), {}, jax.random.key(1), rows)[0])
    assert losses[0] == losses[1] > 0


def test_each_network_learns():
    split = Split(_data())
    for stage in SYSTEM.stages(Dataset(split, split, split, {}, {})):
        params, rows = stage.init(jax.random.key(0), {}), stage.rows({})

        def loss(params, stage=stage, rows=rows):
            return stage.loss(params, {}, jax.random.key(1), rows)[0]

        before = loss(params)
        for _ in range(10):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.jit(jax.grad(loss))(params))
        assert loss(params) < before


@pytest.mark.parametrize(
    ("config", "modalities", "message"),
    [
        ({"source": "sound"}, MODALITIES, r"unknown modality \(config.methods.supervised.source\): 'sound'"),
        ({"targets": ("words",)}, MODALITIES, r"unknown target \(config.methods.supervised.targets\): 'words'"),
        ({"targets": ("photo",)}, MODALITIES, r"unknown target \(config.methods.supervised.targets\): 'photo'"),
        ({}, (PHOTO, WORDS), "there is none"),
        ({"source": "words"}, MODALITIES, "Choose a feed-forward one"),
    ],
)
def test_what_it_can_not_predict_is_refused(config, modalities, message):
    system = dataclasses.replace(SYSTEM, config=dataclasses.replace(CONFIG, **config), modalities=modalities)
    with pytest.raises(SbmError, match=message):
        system.check(SamplerOptions())


def test_a_strength_is_refused():
    with pytest.raises(SbmError, match="no guidance"):
        SYSTEM.generate(_products(), jax.random.key(0), _data(), jnp.ones(4, bool), SamplerOptions(), strength=1.0)


def test_it_is_a_method_without_diffusion_decoders():
    assert "supervised" in METHODS
    assert "supervised_diffusion" not in METHODS


def test_targets_are_those_that_are_modelled_of_those_that_are_named():
    config = dataclasses.replace(CONFIG, targets=("tags", "mask"))
    config.check_modalities([modality.name for modality in MODALITIES])
    few = tuple(modality for modality in MODALITIES if modality.name != "tags")
    assert dataclasses.replace(SYSTEM, config=config, modalities=few).stage_names == ("supervised_photo_to_mask",)
    with pytest.raises(SbmError, match=r"unknown modality \(config\.methods\.supervised\.targets\): 'tags'"):
        config.check_modalities(["photo", "mask"])
