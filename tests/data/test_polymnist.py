import itertools

import numpy as np
import pytest
from PIL import Image

from sbm_jax.data import backgrounds, digits, polymnist, polymnist_tuples
from sbm_jax.data.polymnist import PolyMnistConfig, load_polymnist
from sbm_jax.errors import SbmError

SMALL = {"num_modalities": 2, "max_train": 40, "max_test": 20}


def stacked(rows, key="m0"):
    return np.stack([row[key] for row in rows])


@pytest.fixture(scope="module")
def part():
    return digits.from_sklearn("", seed=0).validation


def test_colours_are_inverted_on_the_binarised_digit_alone(part):
    background = np.arange(60 * 50 * 3, dtype=np.int64).reshape(60, 50, 3) % 251
    background = background.astype(np.uint8)
    rows = list(polymnist_tuples.tuples(part, [background], (0,)))
    crops = np.lib.stride_tricks.sliding_window_view(background, (28, 28), axis=(0, 1))
    crops = np.moveaxis(crops.reshape(-1, 3, 28, 28), 1, -1)
    known = {image.tobytes() for image in part.images > 128}
    for row in rows[:10]:
        same = (crops == row["m0"]).all(axis=-1)
        crop = same.sum(axis=(1, 2)).argmax()
        inverted = (255 - crops[crop] == row["m0"]).all(axis=-1)
        assert (same[crop] ^ inverted).all()
        assert inverted.tobytes() in known


def test_modalities_share_only_the_label(part):
    black = np.zeros((28, 28, 3), np.uint8)
    rows = list(polymnist_tuples.tuples(part, [black] * 3, (0,)))
    assert [row["label"] for row in rows] == part.labels.tolist()
    by_shape = {}
    for image, label in zip(part.images > 128, part.labels, strict=True):
        by_shape.setdefault(image.tobytes(), set()).add(int(label))
    for name in ("m0", "m1", "m2"):
        shown = stacked(rows, name)[..., 0] > 0
        assert all(row["label"] in by_shape[image.tobytes()] for row, image in zip(rows, shown, strict=True))
        # Each digit is shown once.
        assert sorted(image.tobytes() for image in shown) == sorted(image.tobytes() for image in part.images > 128)
    for one, two in itertools.combinations(("m0", "m1", "m2"), 2):
        assert (stacked(rows, one) == stacked(rows, two)).all(axis=(1, 2, 3)).mean() < 0.4


def test_a_modality_does_not_depend_on_their_number(part):
    images = backgrounds.textures(3, seed=0)
    few, many = (list(polymnist_tuples.tuples(part, images[:num], (5,))) for num in (2, 3))
    np.testing.assert_array_equal(stacked(few, "m1"), stacked(many, "m1"))
    other = list(polymnist_tuples.tuples(part, images[:2], (6,)))
    assert (stacked(few, "m1") != stacked(other, "m1")).any()


def test_crops_reach_every_corner_of_the_background(part):
    image = np.zeros((29, 30, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:29, :30]
    draws = polymnist_tuples._draw(part.labels, image.shape, np.random.default_rng(0), 0.0)
    assert set(draws.top) == {0, 1}
    assert set(draws.left) == {0, 1, 2}


def test_warps_move_within_their_ranges():
    warps = polymnist_tuples._warps(np.random.default_rng(0), 2000, 1.0)
    centre = np.array([13.5, 13.5, 1.0])
    moved = np.stack([warps[:, :3] @ centre, warps[:, 3:] @ centre]) - 13.5
    # A shift of two pixels, seen through the largest enlargement or reduction.
    assert 1.9 < np.abs(moved).max() < 2 * 2**0.5 / 0.9
    angle = np.rad2deg(np.arctan2(warps[:, 1], warps[:, 0]))
    assert 11.5 < np.abs(angle).max() <= 12 + 1e-9
    scale = 1 / np.hypot(warps[:, 0], warps[:, 1])
    assert scale.min() >= 0.9 - 1e-9
    assert scale.max() <= 1.1 + 1e-9
    assert np.ptp(scale) > 0.19


def test_the_neutral_warp_changes_nothing(part):
    warp = polymnist_tuples._warps(np.random.default_rng(0), 1, 0.0)[0]
    np.testing.assert_array_equal(polymnist_tuples._warped(part.images[0], warp), part.images[0])


def test_a_shift_moves_the_digit_by_whole_pixels(part):
    shifted = polymnist_tuples._warped(part.images[0], np.array([1.0, 0, -2, 0, 1, 0]))
    np.testing.assert_array_equal(shifted[:, 2:], part.images[0][:, :-2])


def test_augmentation_warps_training_digits_only(tmp_path):
    plain, warped = (load_polymnist(PolyMnistConfig(**SMALL, augment=strength), tmp_path) for strength in (0.0, 1.0))
    assert (plain.train.data["m0"] != warped.train.data["m0"]).any()
    np.testing.assert_array_equal(plain.test.data["m1"], warped.test.data["m1"])
    np.testing.assert_array_equal(plain.validation.data["m1"], warped.validation.data["m1"])


def test_load_gives_three_splits_and_uses_the_prepared_folder(tmp_path, monkeypatch, capsys):
    config = PolyMnistConfig(**SMALL, rounds=3, test_rounds=2)
    first = load_polymnist(config, tmp_path)
    assert "prepare train data" in capsys.readouterr().out
    assert [len(split) for split in first[:3]] == [120, 20, 40]
    parts = digits.from_sklearn("", seed=0)
    np.testing.assert_array_equal(first.train.labels["label"], np.tile(parts.train.labels[:40], 3))
    np.testing.assert_array_equal(first.validation.labels["label"], parts.validation.labels[:20])
    np.testing.assert_array_equal(first.test.labels["label"], np.tile(parts.test.labels[:20], 2))
    expected = list(polymnist_tuples.tuples(parts.train.take(slice(40)), backgrounds.textures(2, seed=0), (0, 0, 1)))
    np.testing.assert_array_equal(first.train.data["m1"][40:80], stacked(expected, "m1"))
    assert first.num_classes == {"label": 10}

    def refuse(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(polymnist, "_drawn_rows", refuse)
    again = load_polymnist(config, tmp_path)
    np.testing.assert_array_equal(first.train.data["m0"], again.train.data["m0"])
    with pytest.raises(AssertionError, match="made again"):
        load_polymnist(PolyMnistConfig(**SMALL, rounds=3, test_rounds=2, seed=1), tmp_path)


def test_the_builder_is_one_of_tensorflow_datasets(tmp_path):
    dataset = load_polymnist(PolyMnistConfig(**SMALL), tmp_path)
    (folder,) = (tmp_path / "poly_mnist").iterdir()
    builder = polymnist.tfds.builder_from_directory(folder / "1.0.0")
    assert builder.info.splits["train"].num_examples == 40
    row = builder.as_data_source("train")[7]
    np.testing.assert_array_equal(row["m1"], dataset.train.data["m1"][7])
    assert row["label"] == dataset.train.labels["label"][7]


def test_settings_hold_no_path(tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(2):
        Image.new("RGB", (30, 30), (k, 0, 0)).save(tmp_path / "images" / f"{k}.png")
    options = {"backgrounds": "directory", "backgrounds_directory": str(tmp_path / "images")}
    settings = load_polymnist(PolyMnistConfig(**SMALL, **options), tmp_path).settings
    assert str(tmp_path) not in str(settings)
    assert settings["backgrounds"] == "directory"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": "sklern"}, "unknown source of digits 'sklern'. Did you mean 'sklearn'"),
        ({"backgrounds": "texture"}, "unknown source of backgrounds 'texture'. Did you mean 'textures'"),
        ({"num_modalities": 0}, "num_modalities is 0; expected at least 1"),
        ({"max_train": 0}, "max_train is 0"),
        ({"augment": -1.0}, "augment is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"archive": "/does/not/exist"}, "is not a directory"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(SbmError, match=message):
        load_polymnist(PolyMnistConfig(**options), tmp_path)


def test_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SbmError, match="cannot be written under"):
        load_polymnist(PolyMnistConfig(**SMALL), tmp_path / "file")


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: bytes(len(content))])
@pytest.mark.parametrize("name", ["*train.array_record*", "dataset_info.json"])
def test_damaged_prepared_data_are_named(tmp_path, name, damage):
    load_polymnist(PolyMnistConfig(**SMALL), tmp_path)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SbmError, match="is damaged"):
        load_polymnist(PolyMnistConfig(**SMALL), tmp_path)


# MARK: The archive


@pytest.fixture
def archive(tmp_path):
    """Write one in which a pixel holds the index, and indices do not sort as text."""
    root = tmp_path / "MMNIST"
    for part, num in (("train", 12), ("test", 11)):
        for k in range(3):
            (root / part / f"m{k}").mkdir(parents=True)
            for index in range(num):
                image = np.full((28, 28, 3), (index, k, len(part)), np.uint8)
                Image.fromarray(image).save(root / part / f"m{k}" / f"{index}.{index % 10}.png")
    return root


def test_archive_is_paired_by_name_in_numeric_order(archive, tmp_path):
    dataset = load_polymnist(PolyMnistConfig(archive=str(archive), num_modalities=3), tmp_path / "cache")
    assert [len(split) for split in dataset[:3]] == [10, 2, 11]
    np.testing.assert_array_equal(dataset.train.labels["label"], np.arange(10))
    np.testing.assert_array_equal(dataset.validation.labels["label"], [0, 1])
    for k in range(3):
        images = dataset.validation.data[f"m{k}"]
        assert images[:, 0, 0].tolist() == [[10, k, 5], [11, k, 5]]
        assert dataset.test.data[f"m{k}"][:, 5, 5].tolist() == [[index, k, 4] for index in range(11)]


def test_archive_may_be_named_by_its_parent(archive, tmp_path):
    config = PolyMnistConfig(archive=str(archive.parent), num_modalities=2, max_train=4, max_test=3)
    dataset = load_polymnist(config, tmp_path / "cache")
    assert [len(split) for split in dataset[:3]] == [4, 2, 3]
    assert set(dataset.test.data) == {"m0", "m1"}


def break_archive(root, what):
    image = root / "train" / "m1" / "3.3.png"
    if what == "missing":
        image.unlink()
    elif what == "name":
        for k in range(3):
            (root / "train" / f"m{k}" / "3.3.png").rename(root / "train" / f"m{k}" / "three.png")
    elif what == "size":
        Image.new("RGB", (27, 28)).save(image)
    elif what == "grey":
        Image.new("L", (28, 28)).save(image)
    elif what == "truncated":
        image.write_bytes(image.read_bytes()[:40])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"m1 and .*m0 differ, for example in '3\.3\.png'"),
        ("name", r"the file 'three\.png'; expected .* index\.digit\.png"),
        ("size", r"m1/3\.3\.png is RGB 27x28; expected RGB 28x28"),
        ("grey", r"m1/3\.3\.png is L 28x28"),
        ("truncated", r"m1/3\.3\.png cannot be read"),
    ],
)
def test_broken_archives_are_refused(archive, tmp_path, what, message):
    break_archive(archive, what)
    with pytest.raises(SbmError, match=message):
        load_polymnist(PolyMnistConfig(archive=str(archive), num_modalities=3), tmp_path / "cache")


def test_archive_with_too_few_modalities_is_refused(archive, tmp_path):
    with pytest.raises(SbmError, match="m3 is not a directory"):
        load_polymnist(PolyMnistConfig(archive=str(archive), num_modalities=4), tmp_path / "cache")
