"""Pretrained networks that judge, small and with random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import judges, pretrained_judges
from sbm_jax.errors import SbmError
from sbm_jax.evaluation.config import EvaluationConfig, VggishConfig
from sbm_jax.networks.pretrained.vggish import Vggish
from sbm_jax.networks.pretrained.vggish import VggishConfig as Sizes
from sbm_jax.types import FormatConfig, Modality, Split
from tests.networks.pretrained.files import tensors_of, write

SIZES = {"widths": (2, 2, 3, 3), "hidden": 8, "embedding_size": 6}
SPECTROGRAM = {"rate": 8000, "length": 16_000, "num_mels": 20, "window": 512, "hop": 250, "iterations": 2}
SOUND = Modality("sound", (64, 20, 1), 4, bounds=(0.0, 1.0), format=FormatConfig("spectrogram", SPECTROGRAM))
IMAGE = Modality("image", (8, 8, 3), 4, bounds=(0.0, 1.0))
VIDEO = Modality("video", (3, 8, 8, 3), 4, bounds=(0.0, 1.0))


@pytest.fixture
def vggish(tmp_path):
    tensors = tensors_of(Vggish(Sizes(**SIZES)), jnp.zeros((1, 96, 64)))
    return VggishConfig(write(tmp_path / "vggish.safetensors", tensors), SIZES)


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, *SOUND.shape), dtype=np.float32)


# MARK: VGGish


def test_every_window_of_a_sound_has_features(vggish, tmp_path):
    space = pretrained_judges.vggish_space(vggish, (IMAGE, SOUND), tmp_path)
    assert set(space.extract) == {"sound"}
    rows = pictures(pretrained_judges.BATCH + 1)
    features = space.extract["sound"](rows)
    assert features.shape == (len(rows), 2, 6)  # two seconds
    assert np.isfinite(features).all()
    assert features.std(axis=0).min() > 0
    np.testing.assert_allclose(space.extract["sound"](rows[-1:]), features[-1:], rtol=1e-4, atol=1e-5)
    assert space.measure("frechet") == "vggish/fad"
    distances = space.compare("sound", features.reshape(-1, 6), rows)
    assert distances["vggish/fad"].value == pytest.approx(0.0, abs=1e-6)
    assert distances["vggish/fad"].n == 2 * len(rows)
    quiet = space.extract["sound"](0.3 * rows).reshape(-1, 6)
    assert space.compare("sound", quiet, rows)["vggish/fad"].value > distances["vggish/fad"].value


def test_sounds_are_heard_at_16_khz():
    seconds = np.arange(4000) / 8000
    waves = np.sin(2 * np.pi * 440 * seconds)[None].astype(np.float32)
    heard = pretrained_judges.as_heard(waves, 8000)
    assert heard.shape == (1, 15_600)
    assert heard.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    np.testing.assert_allclose(heard[0, 200:7800], expected[200:7800], atol=1e-2)
    assert not heard[0, 8000:].any()  # shorter than one window
    assert pretrained_judges.as_heard(waves, 44_100).shape == (1, 15_600)


def test_without_weights_or_sounds_there_is_nothing_to_hear(vggish, tmp_path):
    assert pretrained_judges.vggish_space(VggishConfig(), (SOUND,), tmp_path) is None
    assert pretrained_judges.vggish_space(vggish, (IMAGE,), tmp_path) is None


def test_weights_are_checked_before_anything_is_trained(vggish):
    pretrained_judges.check(EvaluationConfig(vggish=vggish), (SOUND,))
    for wrong, message in (
        (VggishConfig(vggish.weights), "evaluation.vggish.weights: tensor .* has the shape"),
        (VggishConfig(vggish.weights + ".gz"), "evaluation.vggish.weights: no file"),
        (VggishConfig(vggish.weights, {"width": 3}), "unknown field of evaluation.vggish.network: 'width'"),
    ):
        with pytest.raises(SbmError, match=message):
            pretrained_judges.check(EvaluationConfig(vggish=wrong), (SOUND,))


def judges_of(directory, modalities, **pretrained):
    split = Split({})
    dataset = judges.Dataset(split, split, split, {}, {})
    return judges.Judges(dataset, modalities, None, {}, None, None, directory, **pretrained)


def test_the_space_is_chosen_by_name_and_kept_evaluations_know_the_file(vggish, tmp_path):
    space, missing = judges_of(tmp_path, (SOUND,), vggish=vggish).tools.space("vggish", ("sound",))
    assert space.name == "vggish"
    assert missing == {}
    space, missing = judges_of(tmp_path, (SOUND,)).tools.space("vggish", ("sound",))
    assert space is None
    assert "no weights (evaluation.vggish.weights)" in missing["vggish/fad"]
    before = pretrained_judges.contents(EvaluationConfig(vggish=vggish))
    other = tensors_of(Vggish(Sizes(**SIZES)), jnp.zeros((1, 96, 64)), seed=1)
    changed = write(tmp_path / "other.safetensors", other)
    assert pretrained_judges.contents(EvaluationConfig(vggish=VggishConfig(changed, SIZES))) != before


def test_inception_sees_every_frame_of_a_video(monkeypatch, tmp_path):
    monkeypatch.setattr(judges, "read_weights", lambda path: {})
    monkeypatch.setattr(judges, "inception_features", lambda params, images: images.mean(axis=(1, 2)))
    weights = tmp_path / "default_1.pt"
    weights.write_bytes(b"not read")
    space = judges.inception_space(weights, (VIDEO, IMAGE), tmp_path)
    videos = np.random.default_rng(0).integers(0, 256, (5, *VIDEO.shape), dtype=np.uint8)
    np.testing.assert_allclose(space.extract["video"](videos), videos.mean(axis=(2, 3)) / 255, rtol=1e-5)
    assert space.extract["image"](videos[:, 0]).shape == (5, 3)
