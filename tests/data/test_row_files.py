"""Files of single rows: what is written can be read, and what does not fit is refused before it is decoded."""

import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from sbm_jax.data import row_files
from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.types import Modality
from tests.networks.optimus_files import caption

UNIT = {"bounds": (0.0, 1.0)}
SOUND = {"rate": 1000, "length": 64, "num_mels": 4, "window": 32, "hop": 16}


def _format(name, **options):
    return {"name": name, "options": options}


def _modality(name, shape, **fields):
    from sbm_jax.config import build

    return build(Modality, {"name": name, "shape": shape, "latent_size": 2, "codec": "mlp", **fields}, "modality")


PHOTO = _modality("photo", (6, 8, 3), **UNIT)
GREY = _modality("grey", (6, 8, 1), **UNIT, format=_format("array", without_axis=True))
MASK = _modality("mask", (6, 8, 1), likelihood="bernoulli", **UNIT, format=_format("binary", yes=255, dtype="uint8"))
BOOL = _modality("bool", (6, 8, 1), likelihood="bernoulli", **UNIT, format=_format("binary", without_axis=True))
SIGNED = _modality("signed", (6, 8, 3), bounds=(-1.0, 1.0))
CAPTION = _modality("caption", (9,), likelihood="categorical", vocabulary_size=257, format=_format("text"))
WAVE = _modality("wave", (4, 4, 1), **UNIT, format=_format("spectrogram", **SOUND))
COLOR = _modality("color", (2,), likelihood="categorical", format=_format("category", classes=("red", "blue")))
NUMBER = _modality("number", (2,), likelihood="categorical", format=_format("category", classes=(3, 7)))
LEVEL = _modality("level", (3,), format=_format("standardized", mean=(5.0,), std=(2.0,)))
FILM = _modality("film", (2, 6, 8, 1), **UNIT, format=_format("video", rate=8.0))

ROWS = {
    PHOTO: (".png", np.random.default_rng(0).random((6, 8, 3), np.float32)),
    GREY: (".png", np.random.default_rng(1).random((6, 8), np.float32)),
    MASK: (".png", np.random.default_rng(2).integers(0, 2, (6, 8, 1)).astype(np.uint8) * 255),
    BOOL: (".png", np.random.default_rng(3).random((6, 8)) < 0.5),
    SIGNED: (".npy", np.random.default_rng(4).uniform(-1, 1, (6, 8, 3)).astype(np.float32)),
    CAPTION: (".txt", np.str_("a bird é")),
    WAVE: (".wav", np.sin(np.arange(64)).astype(np.float32)),
    COLOR: (".txt", np.str_("blue")),
    NUMBER: (".npy", np.int64(7)),
    LEVEL: (".npy", np.array([4.0, 5.0, 9.0], np.float32)),
    FILM: (".npy", np.random.default_rng(5).random((2, 6, 8, 1), np.float32)),
}


@pytest.mark.parametrize("modality", ROWS, ids=lambda modality: modality.name)
def test_what_is_written_can_be_read(tmp_path, modality):
    """As the networks see it, but for the rounding to the 8 bits of pictures and the 16 of sounds."""
    ending, row = ROWS[modality]
    path = row_files.write_row(modality, row, tmp_path / "some.row")
    assert path == tmp_path / f"some.row{ending}"
    values = make_format(modality)
    read, written = (
        values.to_array(np.asarray([r]), "row") for r in (row_files.read_row(modality, path), np.asarray(row))
    )
    read = read / 255 if read.dtype == np.uint8 else read
    atol = {".png": 0.5 / 255 + 1e-6, ".wav": 5e-3}.get(ending, 0.0)
    np.testing.assert_allclose(np.reshape(read, written.shape), written, atol=atol)


def test_jpeg_and_grey_pictures_are_taken_where_colour_is_expected(tmp_path):
    Image.new("L", (8, 6), 100).save(tmp_path / "a.jpg")
    assert row_files.read_row(PHOTO, tmp_path / "a.jpg").shape == (6, 8, 3)


def test_classes_that_are_numbers_are_read_from_text():
    assert row_files.row_of_text(NUMBER, "7") == 7
    assert row_files.row_of_text(CAPTION, "7") == "7"
    with pytest.raises(SbmError, match=r"'number' is 'seven'; expected one of 3, 7"):
        row_files.row_of_text(NUMBER, "seven")
    with pytest.raises(SbmError, match=r"'photo' takes no text; expected a file of type \.png"):
        row_files.row_of_text(PHOTO, "red")


def test_files_of_another_kind_or_size_are_refused(tmp_path):
    Image.new("RGB", (8, 7)).save(tmp_path / "tall.png")
    Image.new("L", (8, 6), 100).save(tmp_path / "grey.png")
    (tmp_path / "a.pkl").write_bytes(b"")
    (tmp_path / "text.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n")
    for name, modality, message in (
        ("tall.png", PHOTO, "tall.png has 8 x 7 pixels; modality 'photo' takes 8 x 6"),
        ("grey.png", MASK, "grey.png has shades of grey; expected a mask"),
        ("a.pkl", PHOTO, r"a.pkl ends in '.pkl'; modality 'photo' takes .png, .jpg, .jpeg, .npy"),
        ("tall.png", CAPTION, "tall.png ends in '.png'; modality 'caption' takes .txt"),
        ("text.png", PHOTO, "text.png cannot be read as an image"),
        ("nothing.png", PHOTO, "nothing.png cannot be read as an image"),
        ("nothing.npy", PHOTO, "nothing.npy cannot be read"),
    ):
        with pytest.raises(SbmError, match=message):
            row_files.read_row(modality, tmp_path / name)


def test_huge_pictures_are_not_decoded(tmp_path):
    """A PNG of 60,000 x 60,000 pixels, by its head: decoding it would need 10 GB, or fail for want of data."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(4))
    with pytest.raises(SbmError, match=r"bomb.png (has 60000 x 60000 pixels|cannot be read)"):
        row_files.read_row(PHOTO, tmp_path / "bomb.png")


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(SbmError, match="cannot be read: Object arrays cannot be loaded"):
        row_files.read_row(LEVEL, tmp_path / "a.npy")


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(3,), }          ", b"(3000000000000,)}", 1))
    with pytest.raises(SbmError, match="cannot be read"):
        row_files.read_row(LEVEL, tmp_path / "a.npy")


def test_sounds_of_another_rate_are_refused(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(64, np.int16))
    with pytest.raises(SbmError, match="has 8000 samples per second; expected 1000"):
        row_files.read_row(WAVE, tmp_path / "a.wav")


def test_texts_of_pretrained_networks_are_texts_too(tmp_path):
    modality = caption(tmp_path)
    path = row_files.write_row(modality, np.str_("a red bird"), tmp_path / "row")
    assert path.name == "row.txt"
    assert row_files.read_row(modality, path) == row_files.row_of_text(modality, "a red bird") == "a red bird"


def test_a_file_of_several_rows_is_refused(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((4, 3), np.float32))
    with pytest.raises(SbmError, match=r"has the shape \[4, 3\]; .* 'level' expects to be \[3\].* a folder"):
        row_files.read_row(LEVEL, tmp_path / "rows.npy")
