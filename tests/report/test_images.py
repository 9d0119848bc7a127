import base64
import io

import numpy as np
import pytest
from PIL import Image

from sbm_jax.report import images


def decoded(address):
    prefix = "data:image/png;base64,"
    assert address.startswith(prefix)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix(prefix)))))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_clipped_and_coloured(channels):
    values = np.array([-1.0, 0.5, 2.0])[:, None, None] * np.ones((3, 3, channels))
    pixels = images.to_rgba(values)
    np.testing.assert_array_equal(pixels[:, 0, 0], [0, 128, 255])
    assert (pixels[..., 3] == 255).all()


def test_not_finite_pixels_are_magenta():
    np.testing.assert_array_equal(images.to_rgba(np.full((1, 1, 3), np.nan))[0, 0], [255, 0, 255, 255])


def test_bars_have_the_heights_of_the_values():
    pixels = images.bars(np.array([0.0, 0.5, 1.0, np.nan]), 40)
    filled = (pixels == images.BAR_COLOR).all(axis=-1)
    np.testing.assert_array_equal(filled[:, [5, 15, 25, 35]].sum(axis=0), [0, 20, 40, 0])


def test_bars_of_signed_values_start_from_the_middle():
    filled = (images.bars(np.array([-2.0, 1.0]), 40) == images.BAR_COLOR).all(axis=-1)
    assert filled[20:, 5].all()
    assert not filled[:20, 5].any()
    assert filled[10:20, 30].all()
    assert filled[:, 30].sum() == 10


def test_more_values_than_pixels_still_make_a_cell():
    assert images.bars(np.ones(100), 32).shape == (32, 32, 4)


def test_cell_keeps_proportions():
    pixels = images.cell(np.ones((2, 4, 1)), 8)
    assert pixels.shape == (8, 8, 4)
    np.testing.assert_array_equal(pixels[:, 0, 3], [0, 0, 255, 255, 255, 255, 0, 0])


def test_panels_mix_kinds_of_modalities_and_mark_given_ones():
    data = {
        "image": np.zeros((2, 3, 4, 4, 3), np.float32),
        "mask": np.ones((2, 3, 2, 2, 1), np.float32),
        "attributes": np.ones((2, 3, 5), np.float32),
    }
    observed = np.zeros((2, 3, 3), bool)
    observed[0, 1, 2] = True
    first, second = images.panels(data, observed)
    pixels = decoded(first.source)
    assert first.shape == (3, 3)
    assert first.columns == ("image", "mask", "attributes")
    pitch = pixels.shape[0] // 3
    given = (pixels == images.GIVEN_COLOR).all(axis=-1)
    assert given[pitch : 2 * pitch, 2 * pitch :].any()
    given[pitch : 2 * pitch, 2 * pitch :] = False
    assert not given.any()
    assert not (decoded(second.source) == images.GIVEN_COLOR).all(axis=-1).any()


def test_transposed_panels_have_modalities_as_lines():
    data = {"a": np.zeros((1, 5, 4, 4, 1)), "b": np.ones((1, 5, 4, 4, 1))}
    (panel,) = images.panels(data, np.zeros((1, 5, 2), bool), transposed=True)
    assert panel.lines == ("a", "b")
    assert panel.shape == (2, 5)
    height, width = decoded(panel.source).shape[:2]
    assert width * 2 == height * 5


def test_texts_are_a_table_beside_the_pictures():
    data = {
        "image": np.zeros((2, 2, 4, 4, 1), np.float32),
        "caption": np.array([["a bird", "no bird"], ["", "x"]]),
        "ids": np.array([[[3, 2, 0], [1, 0, 0]]] * 2, np.int32),
    }
    observed = np.zeros((2, 2, 3), bool)
    observed[0, 0, 1] = True
    first, second = images.panels(data, observed, ("true", "sample"), transposed=True)
    assert (first.pictures, first.texts) == (("image",), ("caption", "ids"))
    assert [line.heading for line in first.table] == ["true", "sample"]
    assert first.table[0].cells == (("a bird", True), ("3 2", False))
    assert second.table[0].cells == (("", False), ("3 2", False))
    assert not (decoded(first.table[0].source) == images.GIVEN_COLOR).all(axis=-1).any()


def test_a_mask_is_shown_over_the_picture_of_its_size_too():
    mask = np.zeros((1, 2, 4, 4, 1), np.float32)
    mask[0, 0, :2] = 1.0
    data = {"photo": np.full((1, 2, 4, 4, 3), 0.5, np.float32), "mask": mask, "depth": np.zeros((1, 2, 8, 8, 1))}
    observed = np.array([[[True, True, False], [True, False, False]]])
    (panel,) = images.panels(data, observed)
    assert panel.columns == ("photo", "mask", "depth", "mask over photo")
    pixels = decoded(panel.source)
    pitch, middle = pixels.shape[0] // 2, pixels.shape[1] // 4 * 3 + pixels.shape[1] // 8
    above, below = pixels[pitch // 4, middle, :3] / 255, pixels[pitch // 4 * 3, middle, :3] / 255
    np.testing.assert_allclose(above, 0.25 + 0.5 * images.OVERLAY_COLOR, atol=0.01)
    np.testing.assert_allclose(below, 0.5, atol=0.01)
    given = (pixels == images.GIVEN_COLOR).all(axis=-1)[:, middle]
    assert given[:pitch].any()
    assert not given[pitch:].any()
    two = dict.fromkeys("ab", data["photo"]) | {"mask": mask}
    assert images.panels(two, observed)[0].columns == ("a", "b", "mask")
