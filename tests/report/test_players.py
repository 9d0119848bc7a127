import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from sbm_jax.config import plain
from sbm_jax.formats import make_format
from sbm_jax.report import html, players
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
    pictures = make_format(SOUND).to_array(waves, "x")
    data = {"image": np.zeros((3, 2, 4, 4, 1), np.float32), "sound": pictures.reshape(3, 2, 8, 16, 1)}
    observed = np.zeros((3, 2, 2), bool)
    observed[0, 1, 1] = observed[:, :, 0] = True
    return data, observed


def test_players_sound_like_the_cells(grid):
    found = players.players(players.playable(CONFIG), *grid, ("data", "decoded"))
    assert [player.label for player in found] == [
        "sound, example 1, data",
        "sound, example 1, decoded (given)",
        "sound, example 2, data",
        "sound, example 2, decoded",
    ]
    assert not any(player.film for player in found)
    for player, frequency in zip(found, (300, 600, 1200, 2400), strict=True):
        rate, wave = heard(player.sound)
        assert (rate, wave.shape, wave.dtype) == (8000, (2000,), np.int16)
        power = np.abs(np.fft.rfft(wave)) ** 2
        loudest = np.fft.rfftfreq(2000, 1 / 8000)[power.argmax()]
        assert loudest == pytest.approx(frequency, rel=0.15)  # a band is that wide


def test_what_is_not_finite_is_silent():
    _, wave = heard(players.wav_address(np.array([np.nan, 1.0, -1.0]), 8000))
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
    shown = players.upright(pictures)
    assert shown.shape == (2, 16, 8, 1)
    assert (shown[:, -1, 0] == 1).all()
    assert (shown[:, 0, -1] == 2).all()


CLIP = Modality(
    "clip", (10, 4, 6, 1), 4, codec="video", bounds=(0.0, 1.0), format=FormatConfig("video", {"rate": 40.0})
)


def clips(*leading):
    """Return videos whose frame t is t / 10 everywhere."""
    levels = np.arange(10, dtype=np.float32)[:, None, None, None] / 10
    return np.broadcast_to(levels, (*leading, *CLIP.shape))


def test_videos_are_played_with_the_sound_of_their_line(grid):
    data, observed = grid
    formats = players.playable({"modalities": [plain(SOUND), plain(CLIP)]})
    data = {"sound": data["sound"], "clip": clips(3, 2)}
    found = players.players(formats, data, observed, ("data", "decoded"))
    assert [player.label for player in found][:2] == [
        "clip and sound, example 1, data (sound given)",
        "clip and sound, example 1, decoded (given)",
    ]
    alone = players.players(players.playable({"modalities": [plain(SOUND)]}), data, observed)
    assert [player.sound for player in found] == [player.sound for player in alone]
    film = found[0].film
    assert film[1:] == (10, 4, 6, 40.0)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(film.source.removeprefix("data:image/jpeg;base64,")))))
    assert sheet.shape == (8, 48, 3)
    shown = sheet.reshape(2, 4, 8, 6, 3).mean(axis=(1, 3, 4)).ravel() / 255
    np.testing.assert_allclose(shown, [*np.arange(10) / 10, *[0] * 6], atol=0.01)


def test_four_frames_stand_for_a_video():
    pictures = players.as_pictures(players.playable({"modalities": [plain(CLIP)]}), {"clip": clips(2)})["clip"]
    assert pictures.shape == (2, 8, 12, 1)
    shown = pictures.reshape(2, 2, 4, 2, 6).mean(axis=(2, 4))
    np.testing.assert_allclose(shown, np.broadcast_to([[0.1, 0.3], [0.6, 0.8]], shown.shape), rtol=1e-6)


def test_pages_play_videos():
    figures = {
        "samples/unconditional/data/clip": clips(1, 2),
        "samples/unconditional/observed": np.zeros((1, 2, 1), bool),
    }
    results = {"systems": {"sbm_vae": {"metrics": {}}}, "config": {"modalities": [plain(CLIP)]}}
    page = html.render(results, {"sbm_vae": figures}, {})
    assert page.count('data-count="10" data-rate="40.0" data-sheet="data:image/jpeg;base64,') == 2
    assert "requestAnimationFrame" in page
    without = html.render(results, {"sbm_vae": {}}, {})
    assert "<script>" not in without
