"""Texts as the ids of two tokenizers."""

import dataclasses

import numpy as np
import pytest

from sbm_jax.data import check_data
from sbm_jax.errors import SbmError
from sbm_jax.formats import completed, is_complete, make_format
from sbm_jax.types import FormatConfig
from tests.networks.optimus_files import caption

TEXTS = np.array(["a red bird", "", "bird bird"])
# The decoder counts bird 0 ... a 4; the encoder a 0 ... bird 4, [CLS] 6 and [SEP] 7; all from 1.
ROWS = np.array(
    [
        [5, 4, 1, 0, 0, 0, 7, 1, 2, 5, 8, 0],
        [0, 0, 0, 0, 0, 0, 7, 8, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 7, 5, 5, 8, 0, 0],
    ]
)


def with_defaults(modality):
    options = {"cut": False, "digest": "", **modality.format.options}
    return dataclasses.replace(modality, format=FormatConfig("pretrained_text", options))


def test_both_tokenisations_lie_side_by_side(tmp_path):
    form = make_format(caption(tmp_path))
    rows = form.to_array(TEXTS, "data")
    np.testing.assert_array_equal(rows, ROWS)
    assert rows.dtype == np.int32
    assert form.to_raw(rows).tolist() == TEXTS.tolist()
    assert form.to_array(rows, "data") is rows
    np.testing.assert_array_equal(check_data("x", rows, form.modality), rows)
    wrong = rows.copy()
    wrong[0, 3:5] = 0, 1
    with pytest.raises(SbmError, match="an id after a 0 in row 0"):
        check_data("x", wrong, form.modality)


def test_the_encoders_half_is_filled_where_it_is_empty(tmp_path):
    form = make_format(caption(tmp_path))
    generated = ROWS.astype(np.int32)
    generated[:, 6:] = 0
    generated[1] = -1
    filled = form.filled(generated)
    np.testing.assert_array_equal(filled[[0, 2]], ROWS[[0, 2]])
    assert (filled[1] == -1).all()
    assert form.to_raw(filled)[1] == ""
    np.testing.assert_array_equal(form.filled(ROWS), ROWS)
    full = np.array([[1, 1, 1, 1, 1, 0, *[0] * 6]], np.int32)  # with its ends too long for the encoder
    np.testing.assert_array_equal(form.filled(full)[0, 6:], [7, 5, 5, 5, 5, 8])


def test_long_texts_are_refused_or_cut(tmp_path, caplog):
    modality = caption(tmp_path)
    long = np.array(["bird", "a a a a red bird"])
    with pytest.raises(SbmError, match=r"a text of 7 tokens, including its end, in row 1; .* holds 6 at most.*\(14,\)"):
        make_format(modality).to_array(long, "data")
    options = {**modality.format.options, "cut": True}
    form = make_format(dataclasses.replace(modality, format=FormatConfig("pretrained_text", options)))
    rows = form.to_array(long, "data")
    np.testing.assert_array_equal(rows[1], [5, 5, 5, 5, 4, 0, 7, 1, 1, 1, 1, 8])
    assert "1 of 2 texts have more than 6 tokens and are truncated" in caplog.text


def test_the_encoder_may_read_less_than_is_written(tmp_path, caplog):
    """What was generated can be given back, though the encoder adds a begin and an end."""
    rows = make_format(caption(tmp_path)).to_array(np.array(["a a a red bird"]), "data")
    np.testing.assert_array_equal(rows, [[5, 5, 5, 4, 1, 0, 7, 1, 1, 1, 2, 8]])
    assert "1 of 1 texts have more than 6 encoder tokens" in caplog.text


def test_the_vocabulary_is_that_of_the_tokenizers(tmp_path):
    modality = caption(tmp_path)
    open_one = dataclasses.replace(modality, vocabulary_size=0, likelihood="gaussian")
    assert not is_complete(open_one)
    found = completed(dataclasses.replace(open_one, likelihood="categorical"), TEXTS)
    assert is_complete(found)
    assert found.format.options["digest"]
    options = {**found.format.options, "digest": ""}
    assert dataclasses.replace(found, format=FormatConfig("pretrained_text", options)) == with_defaults(modality)
    with pytest.raises(SbmError, match="vocabulary_size is 12; expected 10"):
        make_format(dataclasses.replace(modality, vocabulary_size=12))


def test_other_tokenizers_than_in_training_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    trained, other = (completed(caption(directory), TEXTS) for directory in (tmp_path, tmp_path / "other"))
    assert trained.format.options["digest"] == other.format.options["digest"]  # wherever the files are
    make_format(trained)
    changed = tmp_path / "encoder.json"
    changed.write_text(changed.read_text().replace("bird", "fish"))
    with pytest.raises(SbmError, match=r"encoder.json have the digest .*; expected .* Restore these files"):
        make_format(trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": ""}, r"format\.options\.decoder is ''; expected the file tokenizer\.json"),
        ({"encoder": "none.json"}, r"format\.options\.encoder: none\.json cannot be read"),
    ],
)
def test_files_are_needed(tmp_path, options, message):
    modality = caption(tmp_path)
    form = FormatConfig("pretrained_text", {**modality.format.options, **options})
    with pytest.raises(SbmError, match=message):
        make_format(dataclasses.replace(modality, format=form))
    with pytest.raises(SbmError, match=message):
        completed(dataclasses.replace(modality, format=form), TEXTS)


def test_other_data_are_refused(tmp_path):
    form = make_format(caption(tmp_path))
    for values in (np.zeros((2, 12)), np.zeros(3, np.int32)):
        with pytest.raises(SbmError, match="expects a string for each row, or ids"):
            form.to_array(values, "data")
