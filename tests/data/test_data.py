import dataclasses

import numpy as np
import pytest

from sbm_jax import config, data
from sbm_jax.errors import SbmError
from sbm_jax.types import Dataset, Modality, Split

IMAGE = Modality("image", (4, 4, 3), 8)
SIGNAL = Modality("signal", (5,), 2, likelihood="bernoulli")


def split(num=3, **changes):
    values = {"image": np.zeros((num, 4, 4, 3), np.uint8), "signal": np.full((num, 5), 0.5, np.float32)}
    values |= changes
    data = {name: array for name, array in values.items() if array is not None}
    return Split(data, {"label": np.zeros(num, np.int32)})


def dataset(**changes):
    return Dataset(split(), split(2), split(2, **changes), {"label": 1}, {})


def test_options_are_built_from_plain_values(tmp_path):
    built = config.build(data.DataConfig, {"polymnist": {"max_train": 5, "max_test": 5, "num_modalities": 1}}, "data")
    loaded = data.load(built, tmp_path)
    assert len(loaded.train) == 5
    assert loaded.settings["name"] == "polymnist"
    data.check(loaded, [Modality("m0", (28, 28, 3), 8)])


def test_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(SbmError, match=r"unknown data set 'array'\. Did you mean 'arrays'"):
        data.load(data.DataConfig(name="array"), tmp_path)


def test_good_data_pass():
    data.check(dataset(), [IMAGE, SIGNAL])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": None}, "unknown modality in the test split: 'signal'"),
        ({"signal": np.zeros((2, 4), np.float32)}, r"'test/signal' has the shape \[2, 4\]; expected \['N', 5\]"),
        ({"signal": np.zeros((0, 5), np.float32)}, "N of 1 or more"),
        ({"signal": np.zeros((3, 5), np.float32)}, "expected the same number for each"),
        ({"signal": np.full((2, 5), np.nan, np.float32)}, "'test/signal' has NaN"),
        ({"signal": np.full((2, 5), 1.5, np.float32)}, r"values from 1\.5 to 1\.5; .*bernoulli likelihood"),
        ({"signal": np.full((2, 5), -1, np.int32)}, "values from -1 to -1"),
        ({"signal": np.full((2, 5), "a")}, "'test/signal' has the type"),
        ({"image": None, "signal": None}, "the test split has no modality"),
    ],
)
def test_bad_data_are_refused(changes, message):
    with pytest.raises(SbmError, match=message):
        data.check(dataset(**changes), [IMAGE, SIGNAL])


def test_one_test_row_must_have_everything():
    there = np.array([True, False])
    test = dataclasses.replace(split(2), present={"image": there, "signal": ~there})
    with pytest.raises(SbmError, match="no row of the test split has all of image, signal"):
        data.check(dataset()._replace(test=test), [IMAGE, SIGNAL])
    data.check(dataset()._replace(test=test), [IMAGE])


def test_labels_must_be_as_many_as_rows():
    bad = dataset()._replace(test=dataclasses.replace(split(2), labels={"label": np.zeros(3, np.int32)}))
    with pytest.raises(SbmError, match="'label': 3"):
        data.check(bad, [IMAGE])


def test_unbounded_likelihoods_take_any_range():
    rows = np.array([[-7.0, 9.0]])
    checked = data.check_data("x", rows, Modality("x", (2,), 1, likelihood="gaussian"))
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, rows)


def test_hidden_modalities_leave_one():
    split = Split({name: np.zeros((4000, 2), np.float32) for name in "abc"})
    present = np.stack(list(data.hide(split, 0.6, 0).present.values()), axis=1)
    assert present.any(axis=1).all()
    assert (~present).mean() == pytest.approx(0.6 * 2 / 3, abs=0.02)  # one of three is never hidden
    again = data.hide(data.hide(split, 0.6, 0), 0.5, 1)
    assert not (np.stack(list(again.present.values()), axis=1) & ~present).any()
    rows = again.rows(["c", "a"])
    np.testing.assert_array_equal(rows["present"][:, 0], again.present["c"])
    assert list(rows["data"]) == ["c", "a"]
    assert "present" not in split.rows(["a"])


def test_incomplete_rows_are_left_out_where_that_is_asked_for():
    there = np.arange(4) % 2 == 0
    whole = dataset()._replace(train=dataclasses.replace(split(4), present={"image": there, "signal": ~there | there}))
    config = data.DataConfig(complete=True)
    alone = data.thinned(whole, config)
    assert (len(alone.train), alone.train.present) == (2, None)
    np.testing.assert_array_equal(alone.train.data["signal"], whole.train.data["signal"][there])
    assert len(alone.test) == len(whole.test)
    assert alone.settings != whole.settings
    assert data.thinned(whole, data.DataConfig()) is whole
    assert data.thinned(dataset(), config).settings == dataset().settings
    hidden = data.thinned(whole, dataclasses.replace(config, missing=0.9))
    assert not all(mask.all() for mask in hidden.train.present.values())
    nobody = whole._replace(train=dataclasses.replace(split(4), present={"image": there, "signal": ~there}))
    with pytest.raises(SbmError, match=r"no row of the train split has all modalities, which data\.complete requires"):
        data.thinned(nobody, config)
