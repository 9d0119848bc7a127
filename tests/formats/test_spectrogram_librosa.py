"""Spectrograms and their synthesis against librosa."""

import numpy as np
import pytest

from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import mel_filters
from sbm_jax.types import FormatConfig, Modality

pytestmark = pytest.mark.peer

RATE, LENGTH, WINDOW, HOP, BANDS, LOWEST = 8000, 6000, 256, 100, 24, -80.0


def _spectrogram(**options):
    options = {"rate": RATE, "length": LENGTH, "window": WINDOW, "hop": HOP, "num_mels": BANDS, **options}
    shape = (LENGTH // HOP, options["num_mels"], 1)
    return make_format(
        Modality(
            "sound",
            shape,
            4,
            bounds=(0.0, 1.0),
            format=FormatConfig("spectrogram", {**options, "decibels": (LOWEST, 0.0)}),
        )
    )


def _waves() -> np.ndarray:
    """Return two sounds that begin and end in silence: there the two have other windows."""
    times = np.arange(LENGTH) / RATE
    envelope = np.clip(np.minimum(times - 0.15, 0.6 - times) * 10, 0, 1)
    tones = np.sin(2 * np.pi * np.array([[440.0], [900.0]]) * times * (1 + 0.3 * times))
    noise = np.random.default_rng(0).normal(size=tones.shape)
    return (envelope * (0.4 * tones + 0.02 * noise)).astype(np.float32)


@pytest.mark.parametrize(("bands", "options"), [("htk", {"htk": True, "norm": None}), ("slaney", {})])
def test_mel_filters(bands, options):
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=BANDS, **options)
    found = mel_filters(np.fft.rfftfreq(WINDOW, 1 / RATE), BANDS, RATE / 2, bands)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


def test_mel_spectrograms():
    librosa = pytest.importorskip("librosa")
    waves = _waves()
    settings = {"n_fft": WINDOW, "hop_length": HOP, "pad_mode": "constant"}
    # A sine of amplitude 1 has the power 1: half of it is at negative frequencies, and the window has a sum.
    scale = 2 / librosa.filters.get_window("hann", WINDOW).sum()
    power = scale**2 * np.abs(librosa.stft(waves.astype(np.float64), **settings)) ** 2
    mel = librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=BANDS, htk=True, norm=None)
    frames = LENGTH // HOP
    decibels = 10 * np.log10(np.maximum(mel @ power, 10 ** (LOWEST / 10)))[..., :frames].transpose(0, 2, 1)
    found = _spectrogram().to_array(waves, "data")[..., 0]
    np.testing.assert_allclose(found, (decibels / -LOWEST + 1).clip(0, 1), atol=1e-4)


class _Phases(np.random.Generator):
    """Phases at the beginning of windows, where ours are at their middle: half a turn more for each bin."""

    def random(self, size):
        return super().random(size) + 0.5 * np.arange(size[0])[:, None]


def test_griffin_lim():
    librosa = pytest.importorskip("librosa")
    iterations, frames = 8, LENGTH // HOP
    sound = _spectrogram(iterations=iterations)
    settings = {"n_fft": WINDOW, "hop_length": HOP, "pad_mode": "constant"}
    scale = 2 / librosa.filters.get_window("hann", WINDOW).sum()
    magnitudes = np.abs(librosa.stft(_waves().astype(np.float64), **settings))[..., :frames]
    # The constant and the highest frequency have no negative twin.
    twice = np.where((np.arange(WINDOW // 2 + 1) % (WINDOW // 2) > 0)[:, None], scale, scale / 2)
    found = sound._with_magnitudes(twice * magnitudes)
    length = (frames - 1) * HOP  # of which librosa has as many frames
    for wave, own in zip(found, magnitudes, strict=True):
        start = {"init": "random", "random_state": _Phases(np.random.PCG64(0))}
        expected = librosa.griffinlim(own, n_iter=iterations, momentum=0.99, length=length, **settings, **start)
        assert np.abs(wave[:length] - expected).max() < 1e-3 * np.abs(expected).max()
