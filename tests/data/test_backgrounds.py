import numpy as np
import pytest
from PIL import Image

from sbm_jax.data import backgrounds, digits, polymnist_tuples
from sbm_jax.errors import SbmError

NUM = 12


@pytest.fixture(scope="module")
def drawn():
    return backgrounds.textures(NUM, seed=0)


def balanced_accuracy(values, mask):
    """Return that of the best threshold, in either direction, on integers 0 to 255."""
    on, off = (np.bincount(values[part], minlength=256) / part.sum() for part in (mask, ~mask))
    return 0.5 + 0.5 * np.abs(np.cumsum(on - off)).max()


def test_balanced_accuracy_finds_a_threshold():
    mask = np.array([True, True, False, False])
    assert balanced_accuracy(np.array([9, 200, 3, 5]), mask) == 1.0
    assert balanced_accuracy(np.array([9, 3, 9, 3]), mask) == 0.5


@pytest.mark.parametrize("k", range(NUM))
def test_the_best_threshold_is_often_wrong(drawn, k):
    part = digits.from_sklearn("", seed=0).validation
    images = np.stack([row["m0"] for turn in range(4) for row in polymnist_tuples.tuples(part, [drawn[k]], (turn,))])
    masks = np.stack(
        [row["m0"] for turn in range(4) for row in polymnist_tuples.tuples(part, [np.zeros_like(drawn[k])], (turn,))]
    )
    mask = masks[..., 0] > 0
    luminance = np.round(images @ [0.299, 0.587, 0.114]).astype(int)
    for values in (*np.moveaxis(images, -1, 0), luminance):
        assert balanced_accuracy(values, mask) < 0.86


def test_textures_have_contrast_at_the_scale_of_strokes(drawn):
    for texture in drawn:
        luminance = texture @ [0.299, 0.587, 0.114]
        assert np.ptp(luminance) > 150
        blocks = luminance[:252, :252].reshape(63, 4, 63, 4).mean(axis=(1, 3))
        assert blocks.std() < 0.6 * luminance.std()


def test_textures_differ_in_colour(drawn):
    means = np.stack([texture.mean(axis=(0, 1)) for texture in drawn[:10]])
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1)[~np.eye(10, dtype=bool)]
    assert distances.min() > 3


def test_a_texture_depends_on_seed_and_index_alone(drawn):
    few = backgrounds.textures(3, seed=0)
    for one, same in zip(few, drawn, strict=False):
        np.testing.assert_array_equal(one, same)
    assert (backgrounds.textures(1, seed=1)[0] != drawn[0]).any()
    assert (drawn[10] != drawn[0]).any()


def test_textures_are_not_clipped(drawn):
    for texture in drawn:
        assert texture.dtype == np.uint8
        assert texture.min() > 0
        assert texture.max() < 255


def test_directory_is_read_in_order_of_names(tmp_path):
    for name, value in (("b.png", 2), ("a.jpg", 1), ("c.png", 3)):
        Image.new("RGB", (40, 30), (value * 40,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = backgrounds.from_directory(str(tmp_path), 2)
    assert [image.shape for image in found] == [(30, 40, 3)] * 2
    assert [int(image[0, 0, 0]) for image in found] == [40, 80]


def test_directory_errors_name_the_thing(tmp_path):
    with pytest.raises(SbmError, match="is not a directory"):
        backgrounds.from_directory(str(tmp_path / "missing"), 1)
    with pytest.raises(SbmError, match="backgrounds_directory is empty"):
        backgrounds.from_directory("", 1)
    Image.new("RGB", (40, 27)).save(tmp_path / "a.png")
    with pytest.raises(SbmError, match=r"has 1 images.*expected 2"):
        backgrounds.from_directory(str(tmp_path), 2)
    with pytest.raises(SbmError, match=r"a\.png is 40x27; expected at least 28x28"):
        backgrounds.from_directory(str(tmp_path), 1)
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(SbmError, match=r"a\.png cannot be read as an image"):
        backgrounds.from_directory(str(tmp_path), 1)


def test_digest_follows_the_content(tmp_path):
    for value in (1, 2):
        Image.new("RGB", (40, 30), (value,) * 3).save(tmp_path / f"{value}.png")
    digest = backgrounds.SOURCES["directory"].digest
    one, two = digest(str(tmp_path), 1), digest(str(tmp_path), 2)
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "2.png")
    assert digest(str(tmp_path), 1) == one
    assert digest(str(tmp_path), 2) != two
