"""Attacks are those of their formula, fall on what they are asked for alone, and are told beside what they take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import experiment, experiment_config
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, check_metrics, evaluate
from sbm_jax.evaluation.metrics.base import ReaderFns
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.evaluation.metrics.readings import UNREAD
from sbm_jax.evaluation.metrics.robustness import NO_READER
from sbm_jax.system import Generated
from sbm_jax.systems.readers import Reader, ReaderConfig, fgsm
from sbm_jax.types import CodecConfig, Modality, Split
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

NAMES = ("photo", "sound", "tags")
RNG = np.random.default_rng(0)
TAGS = (RNG.random((40, 5)) < 0.5).astype(np.float32)
DATA = {"photo": 0.8 * TAGS + 0.1, "sound": RNG.random((40, 3), dtype=np.float32), "tags": TAGS}


def _attack(photos, tags, strengths):
    """Make every tag look more like its opposite."""
    return photos + strengths[:, None] * np.where(tags > 0.5, -1.0, 1.0)


def _read(photos):
    """Tell the tags but the first, which is never seen."""
    return np.where(np.arange(5) > 0, photos, 0.0 * photos)


READERS = {("photo", "tags"): ReaderFns(_read, _attack)}


def _generate(key, data, observed, num_samples):
    """Return tags where the photo is above one half."""
    del key, num_samples
    found = {**data, "tags": (jnp.asarray(data["photo"]) > 0.5).astype(jnp.float32)}
    samples = {}
    for m, name in enumerate(NAMES):
        samples[name] = jnp.where(jnp.asarray(observed)[:, m, None], data[name], found[name])[:, None]
    return Generated(samples, None, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})


def _measure(metrics, readers=READERS, data=DATA, generate=_generate):
    config = EvaluationConfig(40, 40, 16, num_repeats=2, metrics=metrics)
    return evaluate(Subject(generate), Split(data), NAMES, jax.random.key(0), config, Tools(readers=readers))


def test_fgsm_on_a_linear_classifier_is_its_formula():
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=(6, 4)), rng.uniform(0.2, 0.8, size=(9, 6)).astype(np.float32)
    y, strengths = (rng.random((9, 4)) > 0.5).astype(np.float32), rng.uniform(0, 0.1, 9).astype(np.float32)

    def loss(x):
        logits = x @ jnp.asarray(weights, jnp.float32)
        return (jax.nn.softplus(logits) - y * logits).sum(axis=1)

    slope = (1 / (1 + np.exp(-x @ weights)) - y) @ weights.T
    np.testing.assert_allclose(fgsm(loss, x, strengths), x + strengths[:, None] * np.sign(slope), atol=1e-6)
    bounded = np.asarray(fgsm(loss, x, jnp.full(9, 0.5), (0.0, 1.0)))
    assert bounded.min() == 0.0
    assert bounded.max() == 1.0
    np.testing.assert_array_equal(fgsm(loss, x, jnp.zeros(9)), x)


def test_scores_fall_with_the_strength():
    metrics, _, _ = _measure({"robustness": {"modality": "tags", "given": ("photo",), "strengths": (0.1, 0.6)}})
    name = "robustness/given_photo/tags"
    clean = f1(TAGS > 0.5, TAGS > 0.5).mean()
    assert metrics[f"{name}/f1"].value == pytest.approx(clean)
    assert metrics[f"{name}/f1/attack_0.1"].value == pytest.approx(clean)
    assert metrics[f"{name}/drop/attack_0.1"].value == pytest.approx(0.0)
    assert metrics[f"{name}/f1/attack_0.6"].value == 0.0
    assert metrics[f"{name}/drop/attack_0.6"].value == 1.0
    assert metrics[f"{name}/f1"].n == 80


def test_other_metrics_are_not_attacked():
    alone, _, _ = _measure({"f1": {"modality": "tags"}})
    both, _, _ = _measure(
        {"f1": {"modality": "tags"}, "robustness": {"modality": "tags", "strengths": (0.6,)}},
    )
    assert both["f1/given_rest/tags"] == alone["f1/given_rest/tags"]
    assert both["robustness/given_rest/tags/f1"].value == alone["f1/given_rest/tags"].value
    assert both["robustness/given_rest/tags/f1/attack_0.6"].value == 0.0


@pytest.mark.parametrize("readers", [{}, {("sound", "tags"): READERS["photo", "tags"]}])
def test_without_a_reader_of_what_is_given_nothing_is_measured(readers):
    metrics, missing, _ = _measure({"robustness": {"modality": "tags", "given": ("photo",)}}, readers)
    assert not metrics
    assert missing == {"robustness": NO_READER}


def test_each_attack_is_that_of_its_own_reader():
    """Tags are attacked through photos, and sounds, which are not, through tags."""
    readers = READERS | {("tags", "sound"): ReaderFns(_read, lambda tags, sounds, strengths: 1.0 - tags)}
    robust = {"modality": "tags", "given": ("photo",), "strengths": (0.6,)}
    metrics, _, _ = _measure({"robustness": robust, "f1": {"modality": "tags"}}, readers)
    assert metrics["robustness/given_photo/tags/f1/attack_0.6"].value == 0.0
    assert metrics["f1/given_rest/tags"].value == pytest.approx(f1(TAGS > 0.5, TAGS > 0.5).mean())


def test_readings_are_those_of_what_is_generated():
    """Photos are drawn right for the tags of the row, but for the second tag; the reader never sees the first."""

    def generate(key, data, observed, num_samples):
        drawn = jnp.where(jnp.arange(5) == 1, 0.0, 0.8 * jnp.asarray(data["tags"]) + 0.1)
        samples = {
            name: jnp.where(jnp.asarray(observed)[:, m, None], data[name], drawn if name == "photo" else data[name])
            for m, name in enumerate(NAMES)
        }
        info = {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)}
        return Generated({name: x[:, None] for name, x in samples.items()}, None, info)

    options = {"modality": "photo", "target": "tags", "given": ("tags",)}
    metrics, missing, _ = _measure({"readings": options}, generate=generate)
    true = TAGS > 0.5
    unseen = {"given_tags": 1, "real": 0}
    expected = {what: f1(true, true & (np.arange(5) > last)).mean() for what, last in unseen.items()}
    for what, value in expected.items():
        assert metrics[f"readings/f1/{what}/photo/tags"].value == pytest.approx(value)
    assert metrics["readings/f1/given_tags/photo/tags"].n == 80
    assert metrics["readings/f1/real/photo/tags"].n == 40
    metrics, missing, _ = _measure({"readings": options}, {})
    assert missing == {"readings/given_tags/photo": UNREAD}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "photo"}, r"readings\.target\): ''"),
        ({"modality": "photo", "target": "photo"}, "which is generated. Name the modality to read from it"),
        ({"target": "tags"}, r"readings\.modality is ''"),
    ],
)
def test_readings_that_can_not_be_are_refused(options, message):
    with pytest.raises(SbmError, match=message):
        check_metrics(EvaluationConfig(40, 40, 16, metrics={"readings": options}), NAMES, NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "robustness.modality is ''"),
        ({"modality": "smell"}, "'smell'"),
        ({"modality": "tags", "given": ("smell",)}, "'smell'"),
        ({"modality": "tags", "given": ("tags",)}, "so nothing is left to compare"),
        ({"modality": "tags", "strengths": ()}, "expected one or more positive numbers"),
        ({"modality": "tags", "strengths": (0.0,)}, "expected one or more positive numbers"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(SbmError, match=message):
        check_metrics(EvaluationConfig(40, 40, 16, metrics={"robustness": options}), NAMES, NAMES)


PHOTO = Modality("photo", (8, 8, 3), 4, CodecConfig("patch", {"widths": (8,)}), bounds=(0.0, 1.0))
SEEN = Modality("tags", (5,), 3, CodecConfig("mlp"), likelihood="bernoulli")
WORDS = Modality("words", (6,), 3, CodecConfig("tokens"), likelihood="categorical", vocabulary_size=7)


def test_an_attack_makes_its_own_reader_err():
    reader = Reader((PHOTO, SEEN), ReaderConfig("photo", "tags"))
    params = reader.predictor.init(jax.random.key(0))
    photos, tags = np.random.default_rng(0).random((12, 8, 8, 3), dtype=np.float32), TAGS[:12]
    strengths = np.repeat(np.float32([0.0, 0.01]), 6)
    found = reader.attack_fn(params)(photos, tags, strengths)
    change = np.abs(found - photos).reshape(12, -1).max(axis=1)
    np.testing.assert_allclose(change, strengths, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1
    before, after = (np.asarray(reader.predictor.loss(params, x, tags)) for x in (photos, found))
    np.testing.assert_allclose(after[:6], before[:6], rtol=1e-6)
    assert (after[6:] > before[6:]).all()
    np.testing.assert_allclose(reader.read_fn(params)(photos), reader.predictor.predict(params, photos), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "smell"}, r"unknown source of config.readers: 'smell'"),
        ({"source": "words"}, r"unknown source of config.readers: 'words'"),
        ({"target": "words"}, r"unknown target of config.readers: 'words'"),
        ({"target": "photo"}, "Name another modality"),
    ],
)
def test_a_reader_that_can_not_read_is_refused(options, message):
    config = dataclasses.replace(ReaderConfig("photo", "tags"), **options)
    with pytest.raises(SbmError, match=message):
        Reader((PHOTO, SEEN, WORDS), config)


@pytest.mark.slow
def test_a_run_trains_its_readers(tmp_path):
    write_data(tmp_path / "data")
    for path in (tmp_path / "data").iterdir():
        with np.load(path) as arrays:
            binary = {**arrays, "b": (arrays["b"] > 0).astype(np.float32)}
        np.savez(path, **binary)
    config = get_config(str(tmp_path / "data"))
    training = {**config.classifier.training, "num_steps": 200, "steps_per_dispatch": 50}
    config.systems = ("supervised",)
    config.readers = ({"source": "a", "target": "b", "training": training},)
    config.methods.supervised = {"training": training, "pictures": {"name": "patch", "width": 8, "depth": 1}}
    robust = {"modality": "b", "given": ("a",), "strengths": (0.5, 2.0)}
    config.evaluation.metrics = {"robustness": robust, "readings": {"modality": "a", "target": "b", "given": ("b",)}}
    config.variations = ({"study": "missing", "value": "half", "changes": {"data.missing": 0.5}},)
    results = experiment.run(experiment_config.parse_config(config), tmp_path / "work")
    metrics, name = results["systems"]["supervised"]["metrics"], "robustness/given_a/b"
    assert metrics[f"{name}/drop/attack_2"]["value"] > metrics[f"{name}/drop/attack_0.5"]["value"] > 0.0
    assert metrics["readings/f1/real/a/b"]["value"] > 0.5
    assert (tmp_path / "work" / "stages" / "reader_a_to_b").is_dir()
    # A variation with data of its own trains its systems anew, and is read by the same readers.
    found = results["variations"][0]["systems"]["supervised"]["metrics"]
    assert found["readings/f1/real/a/b"] == metrics["readings/f1/real/a/b"]
    assert found[f"{name}/f1"] != metrics[f"{name}/f1"]
    stages = tmp_path / "work" / "variations" / "missing_half" / "stages"
    assert all(path.name.startswith("supervised_a_to_") for path in stages.iterdir())


def test_each_reader_is_named_once():
    config = get_config("nowhere")
    config.readers = ({"source": "a", "target": "b"}, {"source": "a", "target": "b"})
    with pytest.raises(SbmError, match="expected each source and target once"):
        experiment.check(experiment_config.parse_config(config))
