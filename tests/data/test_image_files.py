"""Images of every mode are read right, or refused in words; what is no image is passed over."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from sbm_jax.data import backgrounds, polymnist
from sbm_jax.data.files import rgb_image
from sbm_jax.errors import SbmError

RAMP = np.broadcast_to(np.arange(64) * 4, (64, 64))  # 0 to 252
RGB = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2).astype(np.uint8)


def read(path, image, **options):
    image.save(path, **options)
    return rgb_image(path, "Remove it.")[0]


@pytest.mark.parametrize(
    ("pixels", "mode", "error"),
    [
        (RAMP > 128, "1", 128),
        (RAMP.astype(np.uint8), "L", 0),
        ((RAMP * 257).astype(np.uint16), "I;16", 0),
        (RAMP.astype(np.uint8), "P", 0),
        (RAMP.astype(np.uint8), "LA", 0),
        (RAMP.astype(np.uint8), "RGBA", 0),
    ],
)
def test_a_ramp_stays_a_ramp(tmp_path, pixels, mode, error):
    image = Image.fromarray(pixels)
    found = read(tmp_path / "ramp.png", image if image.mode == mode else image.convert(mode))
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - RAMP[:, :, None]).max() <= error


def test_colours_stay_what_they_are(tmp_path):
    image = Image.fromarray(RGB)
    np.testing.assert_array_equal(read(tmp_path / "a.png", image), RGB)
    np.testing.assert_array_equal(read(tmp_path / "b.png", image.convert("RGBA")), RGB)
    cmyk = read(tmp_path / "c.tif", image.convert("CMYK"))
    assert np.abs(cmyk.astype(int) - RGB).max() < 10


@pytest.mark.parametrize(("kind", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_values_of_any_range_are_refused(tmp_path, kind, dtype):
    with pytest.raises(SbmError, match=r"a\.tif has 32 bits per channel.*Remove it"):
        read(tmp_path / "a.tif", Image.fromarray(RAMP.astype(dtype)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_images_are_refused(tmp_path, mode):
    image, options = Image.fromarray(RGB).convert(mode), {}
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(RAMP.astype(np.uint8)))
    else:
        options = {"transparency": 0 if mode == "P" else (0, 0, 255)}
    if mode == "P":
        image.putpixel((0, 0), 0)
    with pytest.raises(SbmError, match=r"a\.png is partly transparent"):
        read(tmp_path / "a.png", image, **options)


def test_photographs_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = Image.fromarray(RGB[:32])
    found = read(tmp_path / "a.png", image, exif=exif)
    np.testing.assert_array_equal(found, np.asarray(image.rotate(-90, expand=True)))
    assert ImageOps.exif_transpose(image).size == (64, 32)


def test_what_systems_leave_in_directories_is_passed_over(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "b.jpg")
    for name in (".DS_Store", "._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    for name in (".ipynb_checkpoints", "a.png"):
        (tmp_path / name).mkdir()
    (image,) = backgrounds.from_directory(str(tmp_path), 1)
    assert image.shape == (64, 64, 3)
    with pytest.raises(SbmError, match="has 1 images"):
        backgrounds.from_directory(str(tmp_path), 2)


def test_the_archive_passes_them_over_too(tmp_path):
    for part in ("train", "test"):
        for index in range(6):
            path = tmp_path / part / "m0" / f"{index}.{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RGB[:28, :28]).save(path)
        for name in (".DS_Store", "._0.0.png", "Thumbs.db"):
            (path.parent / name).write_bytes(b"\0")
        (path.parent / "7.7.png").mkdir()
    rows = polymnist._archive_rows(polymnist.PolyMnistConfig(archive=str(tmp_path), num_modalities=1))
    assert [rows[name].num for name in ("train", "validation", "test")] == [5, 1, 6]


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    Image.fromarray(RGB).save(tmp_path / "photos" / "a.png")
    assert len(backgrounds.from_directory("~/photos", 1)) == 1
