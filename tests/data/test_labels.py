"""Labels of any numbers: those that occur are the classes."""

import logging

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
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def load(root, *names):
    return load_arrays(ArraysConfig(str(root)), root, names or None)


@pytest.mark.parametrize(
    "names",
    [[1, 2, 3, 4], [0, 1, 5, 7], [-1, 0, 1, 2], [0, 3 * 10**8, 6 * 10**8, 9 * 10**8], [-(2**62), 0, 1, 2**62]],
)
def test_the_labels_that_occur_are_the_classes(tmp_path, names):
    names = np.array(names)
    write(tmp_path, train=rows(label=names[np.arange(20) % 4]), test=rows(6, label=names[np.arange(6) % 4]))
    dataset = load(tmp_path)
    assert dataset.num_classes == {"label": 4}
    assert dataset.test.labels["label"].dtype == np.int32
    assert dataset.test.labels["label"].tolist() == [0, 1, 2, 3, 0, 1]
    assert dataset.settings["labels"] == names.tolist()


def test_usual_labels_leave_the_recipe_as_it_was(tmp_path):
    write(tmp_path, train=rows(), test=rows(6))
    assert load(tmp_path).settings.keys() == {"digests", "validation_fraction", "seed"}


def test_a_label_of_training_rows_alone_is_a_class(tmp_path):
    write(tmp_path, train=rows(), test=rows(3))
    dataset = load(tmp_path)
    assert dataset.num_classes == {"label": 4}
    assert dataset.test.labels["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.int8])
def test_labels_of_any_integers_are_read(tmp_path, dtype):
    labels = (np.arange(20) % 2).astype(dtype)
    write(tmp_path, train=rows(label=labels), test=rows(6, label=labels[:6]))
    assert load(tmp_path).test.labels["label"].tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(20) * 10**9, r"20 different values \(0, 1000000000, 2000000000, ...\) in 18 training rows"),
        (np.arange(20) // 2 * 3, "look like row identifiers"),  # nearly as many as rows
        (np.arange(20).astype(str), "label is <U"),
        (np.arange(20) / 2, "label is float64"),
        (np.full(20, 2**64 - 1, np.uint64), "int64 cannot hold"),
    ],
)
def test_what_is_no_class_is_refused(tmp_path, labels, message):
    write(tmp_path, train=rows(label=labels), test=rows(6, label=labels[:6]))
    with pytest.raises(SbmError, match=message) as caught:
        load(tmp_path)
    assert "train.npz" in str(caught.value)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_no_training_row_has_is_refused(tmp_path, split):
    write(tmp_path, train=rows(), validation=rows(4), test=rows(4))
    write(tmp_path, **{split: rows(4, label=np.array([0, 7, 2, 7]))})
    with pytest.raises(SbmError, match=rf"{split}\.npz: label has values that no row of train\.npz has: 7\. Leave"):
        load(tmp_path)


def test_a_class_that_is_split_off_whole_is_told(tmp_path, caplog):
    write(tmp_path, train=rows(), test=rows(6))
    held_out = load(tmp_path).validation.data["signal"][0, 0] // 3
    labels = np.where(np.arange(20) == held_out, 9, np.arange(20) % 4)
    write(tmp_path, train=rows(label=labels))
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        assert load(tmp_path).num_classes == {"label": 5}
    assert "all rows with the label 9 were split off" in caplog.text


def test_rows_may_answer_several_questions(tmp_path):
    colours = {"label.colour": np.array([7, 9])[np.arange(20) % 2]}
    write(tmp_path, train=rows(**colours), test=rows(6, **{name: array[:6] for name, array in colours.items()}))
    dataset = load(tmp_path, "image", "signal")
    assert dataset.num_classes == {"label": 4, "colour": 2}
    assert dataset.test.labels["colour"].tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.settings["labels.colour"] == [7, 9]
    assert dataset.train.data.keys() == {"image", "signal"}
    taken = dataset.test.take(np.array([3, 0]))
    assert {name: array.tolist() for name, array in taken.labels.items()} == {"label": [3, 0], "colour": [1, 0]}
    write(tmp_path, train=rows(**{"label.a/b": np.zeros(20, int)}), test=rows(6, **{"label.a/b": np.zeros(6, int)}))
    with pytest.raises(SbmError, match=r"the array 'label\.a/b' holds the answers to a question"):
        load(tmp_path)


# MARK: Other arrays


def test_arrays_that_nobody_declared_are_left_alone(tmp_path, caplog):
    extra = {"filename": np.array(["1.png"] * 20), "weights": np.ones(4), "made_by": np.array({}, object)}
    write(tmp_path, train={**extra, **rows()}, test=rows(6))
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        dataset = load(tmp_path, "image", "signal")
    assert dataset.train.data.keys() == {"image", "signal"}
    assert "train.npz: not used, because no modality has these names: filename, weights, made_by." in caplog.text
    assert "test.npz" not in caplog.text


@pytest.mark.parametrize("name", ["labels", "y", "Label", "target"])
def test_labels_under_another_name_are_told(tmp_path, caplog, name):
    for split, num in (("train", 20), ("test", 6)):
        write(tmp_path, **{split: rows(num, label=None, **{name: np.arange(num) % 4})})
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        assert load(tmp_path, "image", "signal").num_classes == {}
    assert f"train.npz and test.npz: not used, because no modality has these names: {name}." in caplog.text
    assert f"rename {name!r}" in caplog.text
    caplog.clear()
    write(tmp_path, train=rows(**{name: np.zeros(20)}), test=rows(6, **{name: np.zeros(6)}))
    load(tmp_path, "image", "signal")
    assert "rename" not in caplog.text


def test_a_modality_that_is_missing_is_named_with_its_file(tmp_path):
    write(tmp_path, train=rows(), test=rows(6))
    with pytest.raises(SbmError, match=r"modality in .*train\.npz: 'signals'. Did you mean 'signal'"):
        load(tmp_path, "image", "signals")


def test_masks_of_nothing_are_refused_and_those_of_other_arrays_are_not_used(tmp_path):
    other = {"sound": np.zeros(20), "sound.present": np.ones(20, bool)}
    write(tmp_path, train=rows(**other), test=rows(6))
    assert load(tmp_path, "image", "signal").train.present is None
    write(tmp_path, train=rows(**{"singal.present": np.ones(20, bool)}))
    with pytest.raises(SbmError, match="no modality 'singal'"):
        load(tmp_path, "image", "signal")


@pytest.mark.parametrize("name", ["image", "signal", "label"])
def test_the_array_of_another_length_is_blamed(tmp_path, name):
    write(tmp_path, train=rows(**{name: rows(19)[name]}), test=rows(6))
    with pytest.raises(SbmError, match=rf"train\.npz: {name} (has the shape|is int64) \[19"):
        load(tmp_path)
