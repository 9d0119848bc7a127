"""Logarithms of magnitudes in mel bands, and the vocoder that reads them."""

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.networks.pretrained.hifi_gan import HifiGan, HifiGanConfig
from sbm_jax.types import FormatConfig, Modality
from tests.networks.pretrained.files import tensors_of, write

RATE, LENGTH, HOP, BANDS = 8000, 4000, 80, 20
OPTIONS = {"rate": RATE, "length": LENGTH, "hop": HOP, "window": 512, "num_mels": BANDS}
SIZES = {"num_bands": BANDS, "width": 8, "rates": (10, 8), "kernels": (20, 16), "residual_kernels": (3,)}


def log_mel(**options):
    form = FormatConfig("log_mel", {**OPTIONS, **options})
    return make_format(Modality("sound", (LENGTH // HOP, BANDS, 1), 4, bounds=(0.0, 1.0), format=form))


def waves():
    times = np.arange(LENGTH) / RATE
    tones = np.sin(2 * np.pi * np.array([[440.0], [900.0]]) * times)
    return (tones * np.clip(np.minimum(times - 0.1, 0.4 - times) * 10, 0, 0.5)).astype(np.float32)


def test_sounds_come_back():
    form = log_mel()
    pictures = form.to_array(waves(), "data")
    assert pictures.shape == (2, 50, 20, 1)
    assert 0.7 < pictures.max() < 1.0
    assert pictures[:, 0].max() == 0.0  # silence
    again = form.to_raw(pictures)
    assert again.shape == (2, LENGTH)
    assert 0.1 < np.abs(again).max() <= 1
    loud = pictures > 0.7
    np.testing.assert_allclose(form.to_array(again, "data")[loud], pictures[loud], atol=0.1)


def test_twice_the_amplitude_is_one_step():
    form = log_mel()
    low, high = form.options.logarithms
    pictures = form.to_array(np.concatenate([waves(), 0.5 * waves()]), "data") * (high - low)
    loud = pictures[:2] > 0.3 * (high - low)
    assert loud.sum() > 20
    np.testing.assert_allclose((pictures[:2] - pictures[2:])[loud], np.log(2), atol=1e-3)


def test_the_vocoder_speaks(tmp_path):
    module = HifiGan(HifiGanConfig(**SIZES))
    tensors = tensors_of(module, jnp.zeros((1, 1, BANDS)))
    path = write(tmp_path / "hifi_gan.safetensors", tensors)
    form = log_mel(vocoder=path, network=SIZES)
    form.check_files()
    pictures = form.to_array(np.tile(waves(), (9, 1)), "data")
    spoken = form.to_raw(pictures)
    assert spoken.shape == (18, LENGTH)
    assert spoken.dtype == np.float32
    np.testing.assert_allclose(spoken[-2:], spoken[:2], atol=1e-5)
    assert np.abs(spoken[0] - log_mel().to_raw(pictures[:1])[0]).max() > 1e-3
    with pytest.raises(SbmError, match=r"format\.options\.vocoder: .*(no tensor|has the shape)"):
        log_mel(vocoder=path, network=SIZES | {"width": 16}).check_files()
    with pytest.raises(SbmError, match=r"rates whose product is the hop \(80\)"):
        log_mel(vocoder=path, network=SIZES | {"rates": (10, 4)})


@pytest.mark.peer
def test_logarithms_are_those_that_vocoders_read():
    librosa = pytest.importorskip("librosa")
    form = log_mel()
    low, high = form.options.logarithms
    settings = {"n_fft": 512, "hop_length": HOP, "n_mels": BANDS, "power": 1.0, "pad_mode": "constant"}
    magnitudes = librosa.feature.melspectrogram(y=waves(), sr=RATE, **settings)[..., : LENGTH // HOP]
    expected = np.log(np.maximum(magnitudes, 1e-5)).transpose(0, 2, 1)
    found = low + (high - low) * form.to_array(waves(), "data")[..., 0]
    loud = expected > -6
    np.testing.assert_allclose(found[loud], expected[loud], atol=2e-2)
