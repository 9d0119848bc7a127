"""What the page shows of rows of every kind: none of it is taken for HTML, and all of it is in the page itself."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from sbm_jax.explore import show
from sbm_jax.explore.settings import Settings
from sbm_jax.explore.work import Drawn
from tests.data.test_row_files import BOOL, CAPTION, COLOR, FILM, LEVEL, MASK, NUMBER, PHOTO, ROWS, SIGNED, WAVE

SETTINGS = Settings("sbm_vae", 0, ("photo",), ("mask",), "heun", 10, None, samples=4, seed=0)


def _content(shown):
    """Return the bytes in the `data:` address."""
    return io.BytesIO(base64.b64decode(re.search(r'src="data:[a-z/]+;base64,([^"]+)"', shown)[1]))


@pytest.mark.parametrize("modality", ROWS, ids=lambda modality: modality.name)
def test_every_kind_is_shown_by_data_in_the_page_alone(modality):
    shown = show.figure(modality, ROWS[modality][1], "sample 1")
    assert shown.startswith('<figure class="sample">')
    assert re.findall(r'(?:src|href)="(?!data:)', shown) == []


def test_pictures_show_the_pixels_of_rows():
    for modality, row, expected in (
        (PHOTO, ROWS[PHOTO][1], ROWS[PHOTO][1]),
        (PHOTO, np.full((6, 8, 3), 51, np.uint8), np.full((6, 8, 3), 0.2)),
        (SIGNED, ROWS[SIGNED][1], (ROWS[SIGNED][1] + 1) / 2),
        (MASK, ROWS[MASK][1], np.repeat(ROWS[MASK][1] / 255, 3, axis=-1)),
        (BOOL, ROWS[BOOL][1], np.repeat(ROWS[BOOL][1][..., None], 3, axis=-1)),
    ):
        pixels = np.asarray(Image.open(_content(show.figure(modality, row, ""))))[..., :3]
        np.testing.assert_allclose(pixels / 255, expected, atol=0.6 / 255)


def test_sounds_and_films_have_their_rates():
    rate, wave = wavfile.read(_content(show.figure(WAVE, ROWS[WAVE][1], "")))
    assert (rate, wave.shape) == (3000, (192,))  # three times as much of both: browsers play no less
    np.testing.assert_allclose(wave[::3] / 2**15, np.clip(ROWS[WAVE][1], -1, 1), atol=0.05)
    film = Image.open(_content(show.figure(FILM, ROWS[FILM][1], "")))
    assert (film.n_frames, film.info["duration"]) == (2, 125)


def test_words_classes_and_numbers_are_written():
    assert ">a bird é<" in show.figure(CAPTION, ROWS[CAPTION][1], "")
    assert ">blue<" in show.figure(COLOR, np.str_("blue"), "")
    assert ">7<" in show.figure(NUMBER, np.int64(7), "")
    assert ">4, 5, 9<" in show.figure(LEVEL, ROWS[LEVEL][1], "")
    assert ">(empty)<" in show.figure(CAPTION, np.str_(""), "")
    assert ">diverged<" in show.figure(PHOTO, np.full((6, 8, 3), np.nan), "")


def test_texts_are_no_html():
    text = "<script>alert('a')</script>"
    for shown in (show.figure(CAPTION, np.str_(text), text), show.error(text), show.notes([text])):
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("diverged", [0, 2])
def test_what_it_cost_and_a_link_are_told(diverged):
    info = {"network_evaluations": 20, "decoder_evaluations": 5, "diverged": diverged}
    found = Drawn({"photo": ROWS[PHOTO][1]}, {"mask": ROWS[MASK][1][None]}, info, 1.234, compiled=False)
    shown = show.drawn([PHOTO, MASK], found, {"mask": ROWS[MASK][1]}, SETTINGS)
    assert "20 evaluations of the network; 5 of each decoder; 1.23 s" in shown
    assert ("2 samples diverged" in shown) == bool(diverged)
    assert "href='?system=sbm_vae&amp;row=0&amp;given=photo" in shown
    assert re.findall(r'<figure class="(\w+)"', shown) == ["given", "true", "sample"]
    assert "for compilation" in show.drawn([PHOTO, MASK], found._replace(compiled=True), {}, SETTINGS)
