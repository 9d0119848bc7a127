"""Values in other units than their modality's: read right, refused, or told before training."""

import logging

import numpy as np
import pytest

from sbm_jax import data
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, make_codec
from sbm_jax.types import Dataset, Modality, Split

RNG = np.random.default_rng(0)
UNIT = RNG.random((30, 6)).astype(np.float32)
ONE_HOT = np.eye(6, dtype=np.float32)[RNG.integers(0, 6, 30)]


def modality(likelihood="gaussian", scale=0.5**0.5, **options):
    return Modality("x", (6,), 2, "mlp", likelihood, scale, **options)


def checked(rows, *args, **options):
    return data.check_data("x", rows, modality(*args, **options))


def test_what_leaves_a_bound_by_rounding_is_brought_to_it():
    rows = np.concatenate([UNIT, [[1.0000002, -1e-7, 0, 1, 0.5, 0.5]]]).astype(np.float32)
    found = checked(rows, bounds=(0.0, 1.0))
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() == 1
    np.testing.assert_array_equal(found[:30], UNIT)
    assert rows.max() > 1  # what was given is left as it is
    assert checked(300 * rows, bounds=(0.0, 300.0)).max() == 300


def test_a_message_has_the_digits_that_tell_why():
    with pytest.raises(SbmError, match=r"values from 0 to 1\.0001; .* expects 0 to 1 "):
        checked(np.linspace(0, 1.0001, 6, dtype=np.float32)[None], bounds=(0.0, 1.0))


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli", "categorical"])
def test_masks_as_uint8_are_refused(likelihood):
    with pytest.raises(SbmError, match="no value above 1; uint8 stands for value / 255"):
        checked(ONE_HOT.astype(np.uint8), likelihood)
    assert checked(ONE_HOT.astype(bool), likelihood).dtype == np.float32
    assert checked(255 * ONE_HOT.astype(np.uint8), likelihood).dtype == np.uint8
    assert not checked(np.zeros((2, 6), np.uint8), likelihood).any()  # black


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0)])
def test_uint8_is_refused_in_other_bounds(bounds):
    with pytest.raises(SbmError, match="from 0 to 1; modality 'x' has bounds"):
        checked((255 * UNIT).astype(np.uint8), bounds=bounds)


@pytest.mark.parametrize(
    "rows",
    [
        np.full((3, 6), 0.5, np.float32),
        np.repeat([[0, 1, 1, 0, 0, 0]], 3, axis=0),
        np.full((3, 6), 200, np.uint8),
    ],
)
def test_what_are_no_probabilities_is_refused(rows):
    with pytest.raises(SbmError, match=r"sum to 1\. Turn class indices into one-hot"):
        checked(rows, "categorical")


def test_probabilities_of_any_precision_pass():
    probabilities = RNG.dirichlet(np.ones(6), 30)
    for rows in (probabilities, probabilities.astype(np.float16), np.round(255 * probabilities).astype(np.uint8)):
        checked(rows, "categorical")
    checked(ONE_HOT.astype(np.int64), "categorical")


def told(caplog, rows, *args, **options):
    caplog.clear()
    split = Split({"x": rows})
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        data.check(Dataset(split, split, split, {}, {}), [modality(*args, **options)])
    return caplog.text


def test_training_data_of_unusual_size_are_told(caplog):
    usual = RNG.standard_normal((30, 6))
    message = "likelihood of scale 0.707 is meant for values of about 1"
    assert message in told(caplog, 255 * UNIT)
    assert message in told(caplog, 255 * UNIT, "laplace")
    assert message in told(caplog, 255 * UNIT, bounds=(0.0, 255.0))
    assert message in told(caplog, (255 * UNIT).astype(int))
    assert message in told(caplog, 300 + usual)
    assert "nearly equal" in told(caplog, 1e-4 * usual)
    assert "nearly equal" in told(caplog, UNIT / 255, bounds=(0.0, 1.0))
    assert "nearly equal" in told(caplog, UNIT / 255, "bernoulli")
    assert "stands for value / 255" in told(caplog, np.round(16 * UNIT).astype(np.uint8), bounds=(0.0, 1.0))


def test_usual_data_are_not_remarked_on(caplog):
    usual = RNG.standard_normal((30, 6))
    for rows in (usual, 5 * usual, 0.1 * usual, UNIT, ONE_HOT, 2 * UNIT - 1, (255 * UNIT).astype(np.uint8)):
        assert not told(caplog, rows)
    assert not told(caplog, 255 * UNIT, scale=50.0)
    assert not told(caplog, 0.01 * usual, scale=0.01)
    assert not told(caplog, UNIT, bounds=(0.0, 1.0))
    assert not told(caplog, UNIT, "bernoulli")
    assert not told(caplog, ONE_HOT, "categorical")


def test_a_modality_that_is_constant_is_told(caplog):
    rows = np.repeat(UNIT[:1], 30, axis=0)
    assert "all rows are equal" in told(caplog, rows)
    assert "all rows are equal" in told(caplog, np.zeros((30, 6), np.uint8))
    rows = np.concatenate([rows, UNIT])
    present = {"x": np.arange(60) < 30}  # what rows lack does not count
    split = Split({"x": rows}, {}, present)
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        data.check(Dataset(split, split, split, {}, {}), [modality()])
    assert "all rows are equal" in caplog.text


def test_one_batch_is_not_remarked_on(caplog):
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        checked(np.zeros((2, 6), np.float32))
        checked(np.full((2, 6), 200.0))
    assert not caplog.text


def test_checked_data_are_those_that_are_trained_on():
    rows = UNIT.copy()
    rows[0, 0] = 1.0000002
    split = Split({"x": rows, "other": rows})
    found = data.check(Dataset(split, split, split, {}, {}), [modality(bounds=(0.0, 1.0))])
    assert found.train.data["x"].max() == 1
    assert list(found.train.data) == ["x", "other"]


def test_held_out_rows_of_another_unit_are_told(caplog):
    train, test = Split({"x": UNIT}), Split({"x": 255 * UNIT})
    with caplog.at_level(logging.WARNING, "sbm_jax"):
        data.check(Dataset(train, train, test, {}, {}), [modality()])
    assert "data 'test/x' has a root mean square of" in caplog.text
    assert "validation" not in caplog.text


def test_bounds_beyond_a_likelihood_of_probabilities_are_refused():
    with pytest.raises(SbmError, match=r"leave \[0, 1\]"):
        make_codec(modality("bernoulli", bounds=(0.0, 255.0)), AutoencoderNetworkConfig())


def test_counts_may_be_large_but_neither_negative_nor_pixels(caplog):
    rows = np.array([[0, 700, 3, 9, 1, 0], [5, 0, 900, 2, 2, 1]])
    counts = modality("poisson", None)
    with caplog.at_level(logging.WARNING):
        data.check(Dataset(*[Split({"x": rows})] * 3, {}, {}), [counts])
    assert not caplog.records
    with pytest.raises(SbmError, match="values from -1 to 900"):
        data.check_data("x", np.where(rows == 0, -1, rows), counts)
    with pytest.raises(SbmError, match="counts are integers"):
        data.check_data("x", rows.astype(np.uint8), counts)
