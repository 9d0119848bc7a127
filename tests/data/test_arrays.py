import numpy as np
import pytest

from sbm_jax.data.arrays import ArraysConfig, load_arrays
from sbm_jax.errors import SbmError


def write(root, **splits):
    for name, arrays in splits.items():
        np.savez(root / f"{name}.npz", **arrays)


def rows(num=20, **changes):
    arrays = {
        "image": np.arange(num * 4, dtype=np.uint8).reshape(num, 2, 2, 1),
        "signal": np.arange(num * 3, dtype=float).reshape(num, 3),
        "label": np.arange(num) % 4,
    }
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


def load(root, **options):
    return load_arrays(ArraysConfig(str(root), **options), root)


def test_three_files_are_read_as_they_are(tmp_path):
    write(tmp_path, train=rows(), validation=rows(5), test=rows(6))
    dataset = load(tmp_path)
    assert [len(split) for split in dataset[:3]] == [20, 5, 6]
    assert dataset.num_classes == {"label": 4}
    assert dataset.train.data["image"].dtype == np.uint8
    assert dataset.train.data["signal"].dtype == np.float32
    assert dataset.train.labels["label"].dtype == np.int32
    np.testing.assert_array_equal(dataset.test.data["signal"], rows(6)["signal"])


def test_validation_is_split_off_without_overlap(tmp_path):
    write(tmp_path, train=rows(), test=rows(6))
    dataset, again, other = load(tmp_path), load(tmp_path), load(tmp_path, seed=1)
    assert [len(split) for split in dataset[:3]] == [18, 2, 6]
    firsts = np.concatenate([split.data["signal"][:, 0] for split in dataset[:2]])
    assert sorted(firsts) == rows()["signal"][:, 0].tolist()
    np.testing.assert_array_equal(dataset.validation.data["image"], again.validation.data["image"])
    assert (dataset.train.data["signal"] != other.train.data["signal"]).any()


def test_labels_are_optional(tmp_path):
    write(tmp_path, train=rows(label=None), test=rows(label=None))
    dataset = load(tmp_path)
    assert dataset.num_classes == {}
    assert dataset.train.labels == {}


def test_settings_follow_the_content_and_hold_no_path(tmp_path):
    write(tmp_path, train=rows(), test=rows(6))
    before = load(tmp_path).settings
    assert str(tmp_path) not in str(before)
    assert load(tmp_path).settings == before
    write(tmp_path, test=rows(6, image=np.ones((6, 2, 2, 1), np.uint8)))
    assert load(tmp_path).settings != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": np.zeros((19, 3))}, "signal has the shape"),
        ({"signal": np.float64(3)}, "signal has the shape"),
        ({"signal": np.full((20, 3), np.nan)}, "signal has NaN or infinite values, first in row 0"),
        ({"signal": np.where(np.arange(60).reshape(20, 3) == 8, np.inf, 0)}, "first in row 2"),
        ({"signal": np.full((20, 3), 1e300)}, "infinite"),
        ({"signal": np.array([{}] * 20)}, "Object arrays"),
        ({"signal": np.full(20, 1j)}, "signal has the type"),
        ({"label": np.zeros(19, int)}, r"label is int64 \[19\]"),
        ({"label": np.zeros(20)}, "label is float64"),
        ({"label": np.full(20, -1)}, "no row of train"),
        ({"image": None, "signal": None}, "has no modality"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changes, message):
    write(tmp_path, train=rows(**changes), test=rows(6))
    with pytest.raises(SbmError, match=message) as caught:
        load(tmp_path)
    assert "train.npz" in str(caught.value)


def test_splits_must_agree(tmp_path):
    write(tmp_path, train=rows(), test=rows(6, signal=np.zeros((6, 4))))
    with pytest.raises(SbmError, match=r"test\.npz has .*expected the arrays of train"):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no archive", "half"])
def test_missing_or_unreadable_file_is_named(tmp_path, content):
    write(tmp_path, train=rows(), test=rows(6))
    path = tmp_path / "train.npz"
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(SbmError, match=r"train\.npz (cannot be read|does not exist)"):
        load(tmp_path)


def test_a_bare_array_is_refused(tmp_path):
    write(tmp_path, test=rows(6))
    with (tmp_path / "train.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(SbmError, match=r"train\.npz cannot be read"):
        load(tmp_path)


def test_damaged_values_are_noticed(tmp_path):
    write(tmp_path, train=rows(), test=rows(6))
    path = tmp_path / "train.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(SbmError, match=r"train\.npz cannot be read"):
        load(tmp_path)


def test_options_are_checked(tmp_path):
    with pytest.raises(SbmError, match=r"data\.arrays\.directory is empty"):
        load_arrays(ArraysConfig(), tmp_path)
    with pytest.raises(SbmError, match=r"validation_fraction is 1\.0"):
        load(tmp_path, validation_fraction=1.0)
    write(tmp_path, train=rows(1), test=rows(1))
    with pytest.raises(SbmError, match="too few to split validation off"):
        load(tmp_path)


def test_rows_may_lack_modalities(tmp_path):
    mask = np.arange(20) % 3 > 0
    write(tmp_path, train=rows(**{"signal.present": mask}), test=rows(6))
    dataset = load(tmp_path)
    together = [split.present["signal"] for split in dataset[:2]]
    assert sum(map(len, together)) == 20
    assert sum(part.sum() for part in together) == mask.sum()
    for split in dataset[:2]:  # masks stay with their rows
        np.testing.assert_array_equal(split.present["signal"], split.data["signal"][:, 0] / 3 % 3 > 0)
        assert split.present["image"].all()
    assert dataset.test.present is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal.present": np.ones(20)}, "expected bool"),
        ({"signal.present": np.ones(19, bool)}, "expected bool"),
        ({"sound.present": np.ones(20, bool)}, "no modality 'sound'"),
        ({"signal.present": np.zeros(20, bool), "image.present": np.arange(20) != 7}, "row 7 has no modality"),
    ],
)
def test_bad_masks_are_refused(tmp_path, changes, message):
    write(tmp_path, train=rows(**changes), test=rows(6))
    with pytest.raises(SbmError, match=message):
        load(tmp_path)


def test_test_rows_may_lack_modalities(tmp_path):
    there = np.arange(6) > 2
    write(tmp_path, train=rows(), test=rows(6, **{"signal.present": there}))
    np.testing.assert_array_equal(load(tmp_path).test.present["signal"], there)
