"""Data in the form of their users: to arrays and back, and what is refused."""

import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.types import Modality


def modality(shape, name, likelihood="gaussian", **options):
    return Modality("x", shape, 4, "mlp", likelihood, format={"name": name, "options": options})


def test_standardized_numbers_have_mean_0_and_variance_1_and_come_back():
    values = np.random.default_rng(0).normal([5.0, -1.0], [10.0, 0.1], (1000, 2))
    own = make_format(modality((2,), "standardized", mean=tuple(values.mean(0)), std=tuple(values.std(0))))
    array = own.to_array(values, "data")
    np.testing.assert_allclose(array.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(array.std(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(own.to_raw(array), values, rtol=1e-5, atol=1e-5)


def test_single_numbers_are_vectors_of_one_entry():
    own = make_format(modality((1,), "standardized", mean=(2.0,), std=(4.0,)))
    np.testing.assert_allclose(own.to_array(np.array([2, 6]), "data"), [[0], [1]])


@pytest.mark.parametrize(
    ("shape", "options", "values"),
    [
        ((3,), {"dtype": "bool"}, np.array([[True, False, True]])),
        ((3,), {"dtype": "int64"}, np.array([[1, 0, 0]])),
        ((2, 2, 1), {"dtype": "uint8", "yes": 255, "without_axis": True}, np.array([[[255, 0], [0, 255]]], np.uint8)),
        ((1,), {"without_axis": True}, np.array([True, False])),
        ((3,), {"dtype": "int64", "no": -1}, np.array([[1, -1, 1]])),
        ((2, 1, 1), {"dtype": "float32"}, np.array([[[[1.0]], [[0.0]]]], np.float32)),
    ],
)
def test_yes_and_no_come_back_in_their_type(shape, options, values):
    own = make_format(modality(shape, "binary", "bernoulli", **options))
    array = own.to_array(values, "data")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.ravel(), values.ravel() > 0)
    back = own.to_raw(0.9 * array + 0.05)
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_one_hot_vectors_are_yes_at_the_most_probable_class():
    own = make_format(modality((3,), "binary", "categorical", dtype="uint8"))
    np.testing.assert_array_equal(own.to_raw(np.array([[0.4, 0.35, 0.25]])), [[1, 0, 0]])


def test_names_of_classes_become_one_hot_vectors_and_come_back():
    own = make_format(modality((3,), "category", "categorical", classes=("cat", "dog", "eel")))
    values = np.array(["dog", "cat"])
    np.testing.assert_array_equal(own.to_array(values, "data"), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(own.to_raw(own.to_array(values, "data")), values)


def test_grey_pictures_get_an_axis_for_their_channel():
    own = make_format(modality((4, 5, 1), "array", without_axis=True))
    values = np.zeros((2, 4, 5), np.uint8)
    assert own.to_array(values, "data").shape == (2, 4, 5, 1)
    assert own.to_raw(own.to_array(values, "data")).shape == values.shape


@pytest.mark.parametrize(
    ("own", "values", "message"),
    [
        (modality((2,), "standardized"), np.zeros((3, 4)), r"data has|data is float64 \[3, 4\].*expects numbers"),
        (modality((2,), "standardized"), np.array(["a"]), "expects numbers"),
        (modality((2,), "binary", "bernoulli"), np.array([[0, 2]]), "data has 2; modality 'x' expects 0"),
        (modality((2,), "binary", "bernoulli"), np.zeros((2, 3)), r"shape \[2, 3\]"),
        (modality((2,), "category", "categorical", classes=(3, 7)), np.array([3, 5]), "has .*5.* in row 1"),
        (modality((2,), "category", "categorical", classes=(3, 7)), np.array(["3"]), "one of 3, 7"),
    ],
)
def test_data_of_another_form_are_refused(own, values, message):
    with pytest.raises(SbmError, match=message):
        make_format(own).to_array(values, "data")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (modality((2,), "nothing"), "unknown modality 'x': format"),
        (modality((2,), "standardized", mean=(0.0, 1.0, 2.0)), "mean is"),
        (modality((2,), "standardized", std=(0.0,)), "std is"),
        (modality((2,), "category", classes=("a", "b", "c")), "an entry for each class"),
        (modality((2,), "category", classes=("a", 1)), "strings, or integers"),
        (modality((2,), "array", without_axis=True), "1 as its last size"),
        (modality((2,), "binary", dtype="complex"), "unknown type"),
    ],
)
def test_options_that_do_not_fit_are_refused(own, message):
    with pytest.raises(SbmError, match=message):
        make_format(own)


def test_reports_show_the_names_of_what_is_yes():
    own = make_format(modality((3,), "binary", "bernoulli", names=("hat", "beard", "smile")))
    assert own.to_texts(np.array([[0.9, 0.1, 0.6], [0.0, 0.2, np.nan]])).tolist() == ["hat, smile", ""]
    one = make_format(modality((2,), "binary", "categorical", names=("cat", "dog")))
    assert one.to_texts(np.array([[0.4, 0.3]])).tolist() == ["cat"]
    assert make_format(modality((3,), "binary", "bernoulli")).to_texts(np.ones((1, 3))) is None
    with pytest.raises(SbmError, match=r"format\.options\.names is \('a',\); expected one for each entry of a vector"):
        make_format(modality((3,), "binary", "bernoulli", names=("a",)))
