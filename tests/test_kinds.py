"""What arrays of one's own are taken for."""

import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.kinds import guess
from sbm_jax.types import Modality

RNG = np.random.default_rng(0)
N = 60
GREY = {"name": "array", "options": {"without_axis": True}}


@pytest.mark.parametrize(
    ("rows", "kind", "expected"),
    [
        (RNG.integers(0, 256, (N, 96, 64, 3)).astype(np.uint8), "image", {"shape": (96, 64, 3), "bounds": (0.0, 1.0)}),
        (RNG.integers(0, 256, (N, 28, 28)).astype(np.uint8), "image", {"shape": (28, 28, 1), "format": GREY}),
        (RNG.random((N, 16, 16, 3)), "image", {"bounds": (0.0, 1.0)}),
        (2 * RNG.random((N, 16, 16, 3)) - 1, "image", {"bounds": (-1.0, 1.0)}),
        (2 * RNG.random((N, 16, 12)) - 1, "image", {"shape": (16, 12, 1), "bounds": (-1.0, 1.0), "format": GREY}),
        (RNG.normal(100, 50, (N, 16, 12)), "image", {"shape": (16, 12, 1)}),
        (RNG.random((N, 9, 9)) < 0.5, "binary", {"shape": (9, 9, 1), "likelihood": "bernoulli"}),
        (255 * (RNG.random((N, 9, 9, 1)) < 0.5).astype(np.uint8), "binary", {"shape": (9, 9, 1)}),
        ((RNG.random((N, 18)) < 0.3).astype(np.int64), "binary", {"shape": (18,), "likelihood": "bernoulli"}),
        (np.eye(5)[RNG.integers(0, 5, N)], "binary", {"shape": (5,), "likelihood": "categorical"}),
        (
            RNG.integers(0, 256, (N, 5, 8, 9, 3)).astype(np.uint8),
            "video",
            {"shape": (5, 8, 9, 3), "bounds": (0.0, 1.0)},
        ),
        (RNG.normal(3, 7, (N, 4)), "numbers", {"shape": (4,)}),
        (RNG.normal(3, 7, N), "numbers", {"shape": (1,)}),
        (RNG.dirichlet(np.ones(4), N), "probabilities", {"likelihood": "categorical"}),
        (RNG.poisson(1, (N, 6)), "counts", {"likelihood": "poisson"}),
        (RNG.integers(-3, 9, (N, 6)), "numbers", {}),
        (RNG.integers(1990, 2020, (N, 6)), "numbers", {}),
        (RNG.integers(0, 100, N), "numbers", {"shape": (1,)}),
        (2 * RNG.integers(0, 2, (N, 6)) - 1, "binary", {"likelihood": "bernoulli"}),
        (RNG.integers(0, 5, N).astype(np.uint8), "category", {"shape": (5,)}),
        (RNG.integers(0, 4, N), "category", {"shape": (4,)}),
        (np.array(["red", "blue"])[RNG.integers(0, 2, N)], "category", {"shape": (2,)}),
        (np.array([f"bird {i}" for i in range(N)]), "text", {"shape": (2,), "vocabulary_size": N + 3}),
        (np.array([[3, 9, 2, 0, 0], [1, 0, 0, 0, 0]] * 30), "tokens", {"shape": (5,), "vocabulary_size": 10}),
        (np.stack([*RNG.integers(20, 80, (3, N)), RNG.integers(0, 2, N)], axis=1), "counts", {}),  # a table
    ],
)
def test_rows_are_told_by_type_shape_and_values(rows, kind, expected):
    found = guess("x", rows, {})
    assert found.kind == kind
    assert {name: found.fields[name] for name in expected} == expected
    assert found.told


def test_numbers_are_standardised_by_their_own_moments():
    rows = RNG.normal([100.0, 0.0], [5.0, 1.0], (N, 2))
    options = guess("x", np.concatenate([rows, np.full((N, 1), 7.0)], axis=1), {}).fields["format"]["options"]
    np.testing.assert_allclose(options["mean"], [*rows.mean(axis=0), 7.0])
    np.testing.assert_allclose(options["std"], [*rows.std(axis=0), 1.0])  # what never changes keeps its unit


def test_what_never_changes_keeps_its_unit_whatever_its_rounding():
    options = guess("x", np.full((N, 2), 0.1), {"kind": "numbers"}).fields["format"]["options"]
    assert options["std"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "other", "told"),
    [
        (np.eye(4)[RNG.integers(0, 4, N)], np.array([[1, 1, 0, 0]]), "4 tags"),
        (RNG.random((N, 9, 9)), np.full((1, 9, 9), 1.5), "images from"),
        (np.zeros((N, 9, 9), np.uint8), np.ones((1, 9, 9), np.uint8), "masks, 0 or 1"),
    ],
)
def test_held_out_rows_tell_what_rows_are_too(rows, other, told):
    assert told in guess("x", rows, {}, [other.astype(rows.dtype)]).told


def test_held_out_rows_count_for_the_longest_text_and_the_largest_id():
    found = guess("x", np.array(["one bird", "two"] * 9 + ["a b"] * 2), {"kind": "text"}, [np.array(["one two bird"])])
    assert found.fields["shape"] == (3,)
    found = guess("x", np.array([[3, 9, 2, 0]] * 9), {}, [np.array([[20, 0, 0, 0]])])
    assert found.fields["vocabulary_size"] == 21


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_sound_of_every_usual_rate_has_a_spectrogram(rate):
    rows = RNG.uniform(-0.1, 0.1, (3, rate)).astype(np.float32)
    found = guess("x", rows, {"kind": "sound", "options": {"rate": rate}})
    modality = Modality("x", latent_size=8, codec="patch", **found.fields)
    assert make_format(modality).to_array(rows, "data").shape == (3, *modality.shape)
    assert found.fields["format"]["options"]["decibels"] == [-70.0, -20.0]  # of a peak at -20 dB


def test_options_of_sound_may_be_given_in_part():
    rows = RNG.uniform(-0.1, 0.1, (3, 8000)).astype(np.float32)
    options = {"rate": 8000, "window": 1024, "num_mels": 16}
    found = guess("x", rows, {"kind": "sound", "options": options})
    assert found.fields["shape"] == (32, 16, 1)
    assert {name: found.fields["format"]["options"][name] for name in options} == options


def test_pictures_are_of_one_type_in_all_splits():
    with pytest.raises(SbmError, match="use one type for all splits"):
        guess("photo", RNG.random((N, 16, 16, 3)), {}, [RNG.integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)])


def test_texts_without_spaces_want_bytes():
    rows, other = (np.array([f"{i:05d}" * 3 for i in part]) for part in (range(N), range(N, 2 * N)))
    with pytest.raises(SbmError, match="do not occur in any training text"):
        guess("x", rows, {"kind": "text"}, [other])
    assert "15 bytes" in guess("x", rows, {"kind": "text", "options": {"unit": "byte"}}, [other]).told


def test_sound_needs_its_rate():
    rows = RNG.uniform(-1, 1, (N, 8000)).astype(np.float32)
    found = guess("x", rows, {"kind": "sound", "options": {"rate": 8000}})
    assert found.fields["shape"] == (32, 32, 1)
    with pytest.raises(SbmError, match="samples per second"):
        guess("x", rows, {"kind": "sound"})


def test_what_the_user_declares_is_taken_as_it_is():
    rows = RNG.random((N, 16, 16, 3))
    assert guess("x", rows, {"latent_size": 7}).fields["latent_size"] == 7
    assert guess("x", rows, {"kind": "numbers"}).fields["shape"] == (16, 16, 3)
    assert guess("x", rows, {"shape": (16, 16, 3), "scale": 0.1}).fields == {"shape": (16, 16, 3), "scale": 0.1}


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        (RNG.normal(size=(N, 9000)), {}, "fewer than 8000 numbers"),
        (RNG.normal(size=(N, 2, 3, 4, 5)), {}, r"videos .N, T, H, W, C. with 1 or 3 channels"),
        (RNG.integers(0, 256, (N, 7)).astype(np.uint8), {}, "images"),
        (RNG.integers(0, 9, (N, 9, 9, 3)), {}, "uint8 for the pixels"),
        (RNG.integers(0, 9, (N, 2000)).astype(np.int16), {}, "fewer integers"),
        (RNG.normal(size=(N, 3, 64, 64)), {}, "channels last"),
        (RNG.normal(size=(N, 9)), {"kind": "image"}, "the kind 'image' expects images"),
        (np.array(["a b"] * N), {"kind": "numbers"}, "the kind 'numbers' expects numbers"),
        (RNG.normal(size=(N, 0)), {"kind": "numbers"}, "the kind 'numbers' expects numbers"),
        (np.array(["a b"] * N), {"kind": "text", "options": {"units": "byte"}}, "unknown field of options of text"),
        (RNG.normal(size=(N, 9)), {"kind": "numbers", "options": "x"}, "options is 'x'; expected a dictionary"),
        (
            RNG.uniform(-1, 1, (N, 900)),
            {"kind": "sound", "options": {"rate": "8k"}},
            "rate is '8k'; expected a positive whole number of samples per second",
        ),
        (
            RNG.uniform(-1, 1, (N, 900)),
            {"kind": "sound", "options": {"rate": 0}},
            "rate is 0; expected a positive whole number of samples per second",
        ),
        (RNG.integers(0, 5, (N, 9, 9)).astype(np.uint8), {}, "one-hot masks for labels"),
        (np.array(["a b"] * N), {"kind": "text", "options": {"least": 99}}, "no word occurs 99 times"),
        (RNG.normal(size=(N, 9)), {"shape": 3}, "shape is 3"),
        (RNG.normal(size=(N, 9)), {"kind": ["image"]}, "unknown kind"),
        (RNG.normal(size=(N, 9)), {"kind": "imag"}, "unknown kind of modality 'x': 'imag'. Did you mean 'image'"),
    ],
)
def test_what_can_not_be_told_is_asked_for(rows, given, message):
    with pytest.raises(SbmError, match=message):
        guess("x", rows, given)


@pytest.mark.parametrize(
    ("rows", "other", "message"),
    [
        (np.zeros((N, 5, 8, 9, 3)), np.full((1, 5, 8, 9, 3), 1.5), "values from 0 to 1.5"),
        (np.zeros((N, 5, 8, 9, 3), np.uint8), np.zeros((1, 5, 8, 9, 3)), "use one type for all splits"),
    ],
)
def test_videos_of_other_values_are_refused(rows, other, message):
    with pytest.raises(SbmError, match=message):
        guess("x", rows, {}, [other])
