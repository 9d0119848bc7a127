import base64
import io
import re

import numpy as np
import pytest
from scipy.io import wavfile

from sbm_jax.config import plain
from sbm_jax.report import html, sounds
from sbm_jax.types import FormatConfig, Modality

OPTIONS = {"rate": 8000, "length": 2000, "num_mels": 16, "window": 512, "hop": 250, "iterations": 2}
SOUND = Modality("sound", (8, 16, 1), 4, bounds=(0.0, 1.0), format=FormatConfig("spectrogram", OPTIONS))
CONFIG = {"modalities": [plain(Modality("image", (4, 4, 1), 4)), plain(SOUND)]}


def heard(address):
    prefix = "data:audio/wav;base64,"
    assert address.startswith(prefix)
    return wavfile.read(io.BytesIO(base64.b64decode(address.removeprefix(prefix))))


@pytest.fixture
def grid():
    time = np.arange(2000) / 8000
    waves = np.stack([0.5 * np.sin(2 * np.pi * frequency * time) for frequency in (300, 600, 1200, 2400, 300, 600)])
    pictures = sounds.make_format(SOUND).to_array(waves, "x")
    data = {"image": np.zeros((3, 2, 4, 4, 1), np.float32), "sound": pictures.reshape(3, 2, 8, 16, 1)}
    observed = np.zeros((3, 2, 2), bool)
    observed[0, 1, 1] = observed[:, :, 0] = True
    return data, observed


def test_players_sound_like_the_cells(grid):
    found = sounds.players(sounds.spectrograms(CONFIG), *grid, ("data", "decoded"))
    assert [player.label for player in found] == [
        "sound, example 1, data",
        "sound, example 1, decoded",
        "sound, example 2, data",
        "sound, example 2, decoded",
    ]
    assert [player.given for player in found] == [False, True, False, False]
    for player, frequency in zip(found, (300, 600, 1200, 2400), strict=True):
        rate, wave = heard(player.source)
        assert (rate, wave.shape, wave.dtype) == (8000, (2000,), np.int16)
        power = np.abs(np.fft.rfft(wave)) ** 2
        loudest = np.fft.rfftfreq(2000, 1 / 8000)[power.argmax()]
        assert loudest == pytest.approx(frequency, rel=0.15)  # a band is that wide


def test_what_is_not_finite_is_silent():
    _, wave = heard(sounds.wav_address(np.array([np.nan, 1.0, -1.0]), 8000))
    np.testing.assert_array_equal(wave, [0, 32767, -32767])


def test_pages_have_players_of_spectrograms_alone(grid):
    data, observed = grid
    figures = {f"samples/reconstruction/data/{name}": cells for name, cells in data.items()}
    figures["samples/reconstruction/observed"] = observed
    results = {"systems": {"sbm_vae": {"metrics": {}}}, "config": CONFIG}
    page = html.render(results, {"sbm_vae": figures}, {})
    assert len(re.findall(r'<audio controls preload="none" src="data:audio/wav', page)) == 4
    assert "sound, example 1, decoded (given)" in page
    images_alone = results | {"config": {"modalities": CONFIG["modalities"][:1]}}
    assert "<audio" not in html.render(images_alone, {"sbm_vae": figures}, {})


def test_time_goes_to_the_right_and_tones_rise():
    pictures = np.zeros((2, 8, 16, 1))
    pictures[:, 0, 0], pictures[:, 7, 15] = 1, 2  # the first frame's lowest band, the last frame's highest
    shown = sounds.upright(pictures)
    assert shown.shape == (2, 16, 8, 1)
    assert (shown[:, -1, 0] == 1).all()
    assert (shown[:, 0, -1] == 2).all()
