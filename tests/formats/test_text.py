"""Text as ids."""

import logging
import unicodedata

import numpy as np
import pytest

from sbm_jax.data import check_data
from sbm_jax.errors import SbmError
from sbm_jax.formats import build_vocabulary, completed, is_complete, make_format
from sbm_jax.formats.text import UNKNOWN, text_of, words_of
from sbm_jax.types import FormatConfig, Modality

TEXTS = ["A small bird, with a long-billed head.", "the bird's wing is red", "", "red (and black) bird!"]


def _format(length=12, **options):
    words = options.get("words", ())
    size = 2 + len(words) if words else 257
    return make_format(
        Modality(
            "caption", (length,), 4, "tokens", "categorical", vocabulary_size=size, format=FormatConfig("text", options)
        )
    )


def test_texts_come_back_up_to_case_and_spaces():
    text = _format(words=build_vocabulary(TEXTS))
    ids = text.to_array(np.array(TEXTS), "data")
    assert ids.dtype == np.int32
    assert ids.shape == (4, 12)
    raw = text.to_raw(ids)
    assert raw.tolist() == [
        "a small bird, with a long-billed head.",
        "the bird's wing is red",
        "",
        "red (and black) bird!",
    ]
    np.testing.assert_array_equal(text.to_array(raw, "data"), ids)
    np.testing.assert_array_equal(text.to_array(ids, "data"), ids)
    check_data("caption", ids, text.modality)


def test_bytes_come_back_as_they_are():
    text, raw = _format(20), np.array(["Bird – é", "", "a\tb"])
    np.testing.assert_array_equal(text.to_raw(text.to_array(raw, "data")), raw)


@pytest.mark.parametrize("words", [(), build_vocabulary(TEXTS)])
def test_any_ids_make_a_text_that_is_taken_back(words):
    text = _format(words=words)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, text.modality.vocabulary_size, (200, 12))
    ids[np.arange(12)[None] >= rng.integers(0, 13, 200)[:, None]] = 0
    raw = text.to_raw(ids)
    again = text.to_array(raw, "data")
    np.testing.assert_array_equal(text.to_raw(again), raw)
    if words:
        np.testing.assert_array_equal(again, ids)


def test_samples_that_diverged_are_empty():
    assert _format(3).to_raw(np.full((2, 3), -1, np.int32)).tolist() == ["", ""]


def test_words_of_no_vocabulary_are_counted_once_or_refused(caplog):
    words = build_vocabulary(TEXTS)
    with caplog.at_level(logging.WARNING):
        ids = _format(words=words).to_array(np.array(["a blue bird", "blue green <unk>"]), "data 'train/caption'")
    assert [record.getMessage() for record in caplog.records] == [
        "data 'train/caption': 3 words (2 different, such as 'blue') are not in the vocabulary; they become the "
        "unknown word."
    ]
    assert ids[1].tolist() == [1, 1, 1, *[0] * 9]
    with pytest.raises(SbmError, match=r"has the word 'blue' in row 1.*allow_unknown"):
        _format(words=words, allow_unknown=False).to_array(np.array(["a bird", "a blue bird"]), "data")


def test_the_vocabulary_is_sorted_by_frequency():
    assert build_vocabulary(["a b b", "c b a", UNKNOWN]) == ("b", "a", "c")
    assert build_vocabulary(["a b b", "c b a"], least=2) == ("b", "a")


def test_words_are_found_again_in_their_text():
    for words in (["a", "'", "s"], ["(", "x", ")", "-", "y", "%"], [UNKNOWN, UNKNOWN, ",", "<", "unk", ">"]):
        assert words_of(text_of(words)) == words


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["short", "a bird with a bird with a bird"],
            r"a text of 8 words in row 1.*holds 3 at most. Raise its shape to \(8,\)",
        ),
        ([[1.0, 2.0, 3.0]], r"is float64 \[1, 3\].*expects a string for each row, or ids \[N, 3\]"),
        ([1, 2], r"is int64 \[2\]"),
    ],
)
def test_what_is_no_such_text_is_refused(values, message):
    with pytest.raises(SbmError, match=message):
        _format(3, words=("a", "bird", "with")).to_array(np.array(values), "data 'caption'")


def test_bad_vocabularies_are_refused():
    with pytest.raises(SbmError, match="single words in lower case"):
        _format(words=("Bird",))
    with pytest.raises(SbmError, match="all different"):
        _format(words=("a", "a"))
    with pytest.raises(SbmError, match=r"vocabulary_size.*9.*257, for 256 bytes and an end"):
        make_format(Modality("t", (3,), 4, "tokens", "categorical", vocabulary_size=9, format=FormatConfig("text")))


def test_ids_after_the_end_are_refused():
    with pytest.raises(SbmError, match="has an id after a 0 in row 1"):
        check_data("caption", np.array([[1, 2, 0], [1, 0, 2]]), _format(3).modality)


@pytest.mark.parametrize("text", ["हिन्दी भाषा", "école d\u0065\u0301ja", "İstanbul", "pi is 3.14, or 22/7", "日本 語"])
def test_words_of_any_script_keep_their_marks(text):
    words = words_of(text)
    assert "".join(words) == "".join(unicodedata.normalize("NFC", text.lower()).split())
    assert not any(unicodedata.category(word[0]).startswith("M") for word in words)
    assert words_of(text_of(words)) == words


def test_long_texts_are_cut_where_it_is_asked_for_and_counted(caplog):
    texts = np.array(["a b c", "a b c d e", "b c d e"])
    words = build_vocabulary(texts)
    text = _format(words=words, cut=True)
    length = text.length
    with caplog.at_level("WARNING"):
        ids = text.to_array(
            np.array([" ".join("abcde"[i % 5] for i in range(length + extra)) for extra in (0, 1, 2)]), "data"
        )
    assert "2 of 3 texts have more than" in caplog.text
    assert ids.shape == (3, length)
    assert (ids > 1).all()
    caplog.clear()
    with caplog.at_level("WARNING"):
        text.to_array(np.array([" ".join(["a"] * length + ["unheard"])]), "data")
    assert "not in the vocabulary" not in caplog.text  # of what is left out


def test_a_vocabulary_that_is_left_to_the_data_is_that_of_the_training_rows():
    left = Modality(
        "caption", (12,), 4, "tokens", "categorical", format=FormatConfig("text", {"least": 2, "cut": True})
    )
    assert not is_complete(left)
    whole = completed(left, np.array(TEXTS))
    assert is_complete(whole)
    options = make_format(whole).options
    assert options.words == build_vocabulary(TEXTS, least=2)
    assert options.cut
    assert whole.vocabulary_size == 2 + len(options.words)
    assert all(is_complete(modality) for modality in (_format(words=("a",)).modality, _format().modality))


@pytest.mark.parametrize(
    ("rows", "least", "message"),
    [
        (np.zeros((3, 4), np.int32), 1, r"rows of int32 \[3, 4\]; expected strings"),
        (np.array(["a", "b"]), 2, "least is 2; expected a number of times"),
    ],
)
def test_data_that_tell_no_vocabulary_are_refused(rows, least, message):
    left = Modality("caption", (12,), 4, "tokens", "categorical", format=FormatConfig("text", {"least": least}))
    with pytest.raises(SbmError, match=message):
        completed(left, rows)
