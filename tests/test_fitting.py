"""`sbm_jax.fit`: from arrays and lists to a trained system, and what is refused before anything is trained."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import sbm_jax
from sbm_jax import data as data_sets
from sbm_jax import fitting, types
from sbm_jax.data import memory
from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format

SHORT = {
    f"{stage}.training.{name}": value
    for stage in ("autoencoder", "score")
    for name, value in {"num_steps": 20, "validate_every": 0}.items()
}
SHORT |= {"score.training.steps_per_dispatch": 10, "autoencoder.network.widths": (8,), "score.network.depth": 1}
SHORT |= {"score.network.width": 32, "evaluation.num_repeats": 1, "evaluation.num_unconditional": 20}
SHORT |= {"classifier.training.num_steps": 10, "classifier.training.validate_every": 0, "classifier.widths": (4,)}
MLP = {"codec": {"name": "mlp", "network": {"widths": (8,)}}, "latent_size": 4}


def rows(number=80, seed=0):
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 2, number)
    return {
        "tags": (rng.random((number, 3)) < 0.5) | (which[:, None] == 1),
        "signal": [None if i % 8 == 3 else [float(w), 50.0 * w] for i, w in enumerate(which)],
        "animal": np.array(["cat", "dog"])[which].tolist(),
    }


@pytest.mark.slow
def test_lists_and_arrays_train_and_generate_in_their_own_form(tmp_path, capsys):
    given = dict.fromkeys(("tags", "signal", "animal"), MLP)
    few = {
        "systems": ("sbm_vae",),
        "evaluation.metrics": {"coherence": {"sets": ("given_rest",)}, "f1": {"modality": "tags"}},
    }
    model = sbm_jax.fit(rows(), tmp_path / "run", modalities=given, changes={**SHORT, **few})
    told = capsys.readouterr().out
    assert "3 tags" in told
    assert "one of 2 classes" in told
    assert "of the training rows have it" in told
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "coherence/given_rest" in results["systems"]["sbm_vae"]["metrics"]  # judged by the animal's classes
    drawn = model.generate({"animal": ["dog", "cat"]}, num_samples=3)
    assert drawn.data["tags"].shape == (2, 3, 3)
    assert drawn.data["tags"].dtype == bool
    assert drawn.data["signal"].shape == (2, 3, 2)
    again = model.generate({"signal": drawn.data["signal"][:, 0]}, targets=["animal"])
    assert set(again.data["animal"].ravel()) <= {"cat", "dog"}
    probabilities = model.generate({"animal": ["dog"]}, targets=["tags"], raw=False).data["tags"]
    assert probabilities.dtype == np.float32


def test_a_second_call_trains_nothing_again(tmp_path):
    given = dict.fromkeys(("tags", "signal", "animal"), MLP)
    changes = {**SHORT, "systems": ("sbm_vae",), "evaluation.metrics": {"mse": {}}}
    first = sbm_jax.fit(rows(), tmp_path, modalities=given, changes=changes, seed=np.int64(3))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/checkpoints/**/*") if path.is_file()}
    second = sbm_jax.fit(rows(), tmp_path, modalities=given, changes=changes, seed=3)
    assert before
    assert before == {path: path.stat().st_mtime_ns for path in before}
    one, other = (model.generate({"animal": ["cat"]}).data["signal"] for model in (first, second))
    np.testing.assert_array_equal(one, other)


def test_a_row_with_several_texts_stands_for_as_many_rows():
    texts = np.array([[f"bird {i} {k}" for k in range(3)] for i in range(20)])
    splits = memory.make_splits({"text": texts, "number": np.arange(20.0)}, {"validation": 0.1, "test": 0.1}, 0)
    split = memory.one_text_each(splits["train"], "data")
    assert len(split) == 3 * 16
    assert all(int(t.split()[1]) == n for t, n in zip(split.data["text"], split.data["number"][:], strict=True))
    assert fitting._guesses(splits, {})["text"].kind == "text"


def splits_of(data, **held_out):
    return memory.make_splits(data, {"validation": 0.1, "test": 0.1, **held_out}, 0)


def test_words_for_labels_have_one_number_in_all_splits():
    number = np.arange(12.0)
    held_out = {"n": np.arange(2.0), "label": ["eel", "dog"]}
    splits = splits_of({"n": number, "label": ["cat", "dog", "eel"] * 4}, validation=held_out, test=held_out)
    assert splits["test"].labels["label"].tolist() == splits["validation"].labels["label"].tolist() == [2, 1]


def test_what_is_said_to_be_present_must_also_be_there():
    data = {"n": [None] * 5 + [1.0, 2.0] * 10, "n.present": np.arange(25) < 20, "m": np.arange(25.0)}
    present = np.concatenate([split.present["n"] for name, split in splits_of(data).items() if name != "test"])
    assert present.sum() == 15 - len(splits_of(data)["test"])


def test_a_class_that_rows_lack_gives_no_labels():
    data = {"kind": [None if i % 4 == 0 else ["a", "b"][i % 2] for i in range(60)], "n": np.arange(60.0)}
    splits = splits_of(data)
    dataset, told = fitting._dataset(splits, fitting._guesses(splits, {}))
    assert not dataset.num_classes
    assert told.startswith("none")


def test_a_class_that_held_out_rows_lack_gives_no_labels():
    held_out = {"kind": [None, "a", "b"], "n": np.arange(3.0)}
    splits = splits_of({"kind": ["a", "b"] * 20, "n": np.arange(40.0)}, validation=held_out)
    dataset, _ = fitting._dataset(splits, fitting._guesses(splits, {}))
    assert not dataset.num_classes


def test_complete_rows_are_not_all_held_out():
    """Of 200 rows 20 are complete: a tenth of these are test rows, and the others show what modalities share."""
    data = {"a": [float(i) if i < 110 else None for i in range(200)]}
    data["c"] = [float(i) if i >= 90 else None for i in range(200)]
    splits = splits_of(data)
    assert [len(splits[name]) for name in ("test", "validation")] == [2, 20]
    assert np.all(list(splits["train"].present.values()), axis=0).sum() >= 10
    with pytest.raises(SbmError, match="none of the 40 training rows has two modalities"):
        splits_of(
            {"a": [1.0] * 25 + [None] * 25, "c": [None] * 25 + [1.0] * 25},
            test={"a": [1.0], "c": [2.0]},
            validation=0.2,
        )


def test_held_out_shares_are_of_all_rows():
    splits = splits_of({"n": np.arange(100.0)}, validation=0.3, test=0.5)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [20, 30, 50]


def test_single_numbers_keep_their_axis_where_it_is_declared():
    counts = np.random.default_rng(0).poisson(30, (60, 1))
    for given in ({"shape": (1,), "likelihood": "poisson"}, {"kind": "counts"}):
        splits = {name: fitting._with_axis(split, {"c": given}) for name, split in splits_of({"c": counts}).items()}
        one = fitting._guesses(splits, {"c": given})["c"]
        assert one.fields["shape"] == (1,)
        modality = types.Modality(**{**one.fields, "name": "c", "latent_size": 2, "codec": "mlp"})
        dataset, _ = fitting._dataset(splits, {"c": one})
        assert data_sets.check(dataset, (modality,)).train.data["c"].shape == (48, 1)


def test_unsigned_tags_come_back_as_they_were():
    tags = np.random.default_rng(0).integers(0, 2, (60, 5)).astype(np.uint16)
    splits = splits_of({"tags": tags})
    one = fitting._guesses(splits, {})["tags"]
    own = make_format(types.Modality(**{**one.fields, "name": "tags", "latent_size": 2, "codec": "mlp"}))
    again = own.to_raw(own.to_array(tags, "tags"))
    np.testing.assert_array_equal(again, tags)
    assert again.dtype == np.uint16


def test_a_part_of_the_data_may_be_hidden():
    splits = splits_of({"n": np.arange(60.0), "m": np.arange(60.0)})
    guesses = fitting._guesses(splits, {})
    dataset, _ = fitting._dataset(splits, guesses)
    assert fitting._config(guesses, dataset, "small", {"data.missing": 0.3}, 0).data.missing == 0.3


def test_missing_data_are_hidden_as_in_every_data_set():
    splits = splits_of({"n": np.arange(2000.0), "m": np.arange(2000.0)})
    dataset, _ = fitting._dataset(splits, fitting._guesses(splits, {}))
    hidden = data_sets.with_missing(dataset, 0.4)
    # Of two modalities each row keeps one, and the other is hidden in 0.4 of the rows.
    assert abs(np.mean([~mask for mask in hidden.train.present.values()]) - 0.2) < 0.03
    assert hidden.test.present is None
    assert hidden.settings["missing"] == 0.4


@pytest.mark.parametrize("ragged", [False, True])
def test_sound_of_int16_and_of_any_length_becomes_spectrograms(ragged):
    rng = np.random.default_rng(0)
    waves = [rng.integers(-9000, 9000, 2000 - 7 * i * ragged).astype(np.int16) for i in range(30)]
    splits = splits_of({"sound": waves if ragged else np.stack(waves), "n": np.arange(30.0)})
    guesses = fitting._guesses(splits, {"sound": {"kind": "sound", "options": {"rate": 2000}}})
    dataset, _ = fitting._dataset(splits, guesses)
    modality = types.Modality("sound", latent_size=8, codec="patch", **guesses["sound"].fields)
    pictures = data_sets.check(dataset, [modality]).train.data["sound"]
    assert pictures.shape == (24, *modality.shape)
    assert pictures.max() > 0.5


def test_numbers_of_any_size_and_type_are_standardised():
    seconds = 1.7e9 + np.arange(60)
    splits = splits_of({"time": seconds, "year": np.arange(1940, 2000), "half": np.arange(60).astype(np.float16)})
    guesses = fitting._guesses(splits, {})
    dataset, _ = fitting._dataset(splits, guesses)
    modalities = [types.Modality(name, latent_size=2, codec="mlp", **one.fields) for name, one in guesses.items()]
    for values in data_sets.check(dataset, modalities).train.data.values():
        assert len(np.unique(values)) == len(dataset.train)
        np.testing.assert_allclose(values.std(), 1, rtol=1e-3)


def test_the_work_directory_is_a_path():
    with pytest.raises(SbmError, match="workdir is 3"):
        sbm_jax.fit(rows(), 3)


def test_a_config_is_not_mixed_with_other_arguments(tmp_path):
    with pytest.raises(SbmError, match="preset is given together with a config"):
        sbm_jax.fit(sbm_jax.default_config(), tmp_path, preset="base")
    with pytest.raises(SbmError, match="test is given together with a config"):
        sbm_jax.fit(sbm_jax.default_config(), tmp_path, test=np.zeros(3))


def test_a_rare_class_stays_in_the_training_rows():
    data = {"animal": ["cat"] * 30 + ["dog"] * 30 + ["eel"], "label": [0] * 59 + [1, 2]}
    for seed in range(5):
        splits = memory.make_splits(data, {"validation": 0.2, "test": 0.2}, seed)
        assert set(splits["train"].data["animal"]) == {"cat", "dog", "eel"}
        assert set(splits["train"].labels["label"]) == {0, 1, 2}
        assert sum(map(len, splits.values())) == 61


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"tags": np.zeros((79, 3), bool)}, {}, "the same number of rows"),
        ({"tags": []}, {}, "'tags' has no rows"),
        ({"tags": "cat"}, {}, "'tags' is of type str"),
        ({"tags": [[1, 2], [1]] * 40}, {}, "rows of equal length"),
        ({"signal": [None] * 80}, {}, "None in all rows"),
        ({"animal": ["cat", 3] * 40}, {}, "mixes strings with other types"),
        ({"animal": [b"cat"] * 80}, {}, "Decode them"),
        ({"tags": np.where(np.arange(240).reshape(80, 3) == 7, np.nan, 1.0)}, {}, "infinite values in row 2"),
        ({"label": [None] + ["a"] * 79}, {}, "expected a class for every row"),
        (
            {"label": ["a", "b"] * 40},
            {"test": {**rows(9, 1), "signal": [[0.0, 1.0]] * 9, "label": ["c"] * 9}},
            "has 'c'",
        ),
        ({"label": [["a", "b"]] * 80}, {}, "expected one class per row"),
        ({}, {"seed": -1}, "seed is -1"),
        ({}, {"modalities": ["tags"]}, "modalities is"),
        ({}, {"changes": ["score"]}, "changes is"),
        ({"label": np.arange(80)}, {}, "row identifiers"),
        ({}, {"preset": "huge"}, "unknown preset"),
        ({}, {"test": 1.5}, "test is 1.5"),
        ({}, {"test": 0.99}, "test needs 69 of 80 rows, but only 68"),
        ({"tags.present": True}, {}, "expected True or False for every row"),
        ({"tags.present": [[True], [True, False]]}, {}, "expected True or False for every row"),
        ({}, {"test": np.zeros(3)}, "test is of type ndarray"),
        ({}, {"changes": {"data.name": "digits"}}, "changes has 'data.name'"),
        ({}, {"changes": {"modalities": ()}}, "changes has 'modalities'"),
        ({}, {"modalities": {"tags": {"name": "other"}}}, "its name is the key in data"),
        ({}, {"modalities": {"signal": {"kind": "numbers", "shape": 2}}}, "positive integers"),
        ({}, {"modalities": {"signal": {"kind": "numbers", "shape": (4,)}}}, "but as 'numbers' it has the shape"),
        (
            {"tags": np.where(np.arange(480).reshape(80, 6) % 6 < 3 + np.arange(80)[:, None] % 3, 5 * 10**9, 0)},
            {},
            "Number them from 1",
        ),
        ({}, {"validation": {"tags": np.zeros((5, 3), bool)}}, "validation has"),
        ({}, {"modalities": {"photo": {}}}, "modalities has 'photo'"),
        ({}, {"modalities": {"tags": "mlp"}}, "a dictionary for each modality"),
        ({}, {"changes": {"score.training.steps": 5}}, "unknown field in the change"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(tmp_path, changes, options, message):
    with pytest.raises(SbmError, match=message):
        sbm_jax.fit({**rows(), **changes}, tmp_path / "run", **options)
    assert not (tmp_path / "run" / "stages").exists()


def test_a_work_directory_is_no_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SbmError, match="is a file"):
        sbm_jax.fit(rows(), tmp_path / "file" / "run")


def test_too_few_rows_are_refused(tmp_path):
    with pytest.raises(SbmError, match="expected at least 3"):
        sbm_jax.fit({"n": np.arange(2.0)}, tmp_path)
    with pytest.raises(SbmError, match="no modality, only labels"):
        sbm_jax.fit({"label": np.arange(2)}, tmp_path)


def test_changes_of_a_group_change_what_they_name():
    config = sbm_jax.default_config()
    changes = {"autoencoder": {"training": {"num_steps": 10}}, "score.training": {"batch_size": 8}}
    whole = {"evaluation": {"metrics": {"mse": {}}}, "classifier": {"hidden": 8}}  # there is none yet
    flat = fitting._flat({**changes, **whole}, config)
    assert flat == {
        "autoencoder.training.num_steps": 10,
        "score.training.batch_size": 8,
        "evaluation.metrics": {"mse": {}},
        "classifier": {"hidden": 8},
    }
    config.classifier = ConfigDict({"hidden": 4, "dropout": 0.3})
    assert fitting._flat({"classifier": {"hidden": 8}}, config) == {"classifier.hidden": 8}


def test_sounds_that_are_marked_absent_are_not_looked_at():
    rows = [np.full(3 + i % 2, float(i)) for i in range(30)]
    there = np.arange(30) != 5
    split = memory._read({"n": np.arange(30.0), "w": rows, "w.present": there}, "data")
    np.testing.assert_array_equal(split.data["w"][5], rows[0])
    np.testing.assert_array_equal(split.data["w"][6], rows[6])


def test_rows_that_are_marked_absent_are_not_looked_at():
    which = np.arange(60) % 3
    there = which > 0
    data = {"n": np.arange(60.0), "w": np.where(there, which, -1), "w.present": there}
    guesses = fitting._guesses(splits_of(data), {})
    assert guesses["w"].fields["format"]["options"]["classes"] == (1, 2)
