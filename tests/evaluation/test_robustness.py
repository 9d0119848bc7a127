"""Attacks are those of their formula, fall on what they are asked for alone, and are told beside what they take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import experiment, experiment_config
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, check_metrics, evaluate
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.evaluation.metrics.robustness import NO_ATTACKER
from sbm_jax.system import Generated
from sbm_jax.systems.attacker import Attacker, AttackerConfig, fgsm
from sbm_jax.types import CodecConfig, Modality, Split
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

NAMES = ("photo", "sound", "tags")
RNG = np.random.default_rng(0)
TAGS = (RNG.random((40, 5)) < 0.5).astype(np.float32)
DATA = {"photo": 0.8 * TAGS + 0.1, "sound": RNG.random((40, 3), dtype=np.float32), "tags": TAGS}


def _attack(data, strengths):
    """Make every tag look more like its opposite."""
    change = strengths[:, None] * np.where(data["tags"] > 0.5, -1.0, 1.0)
    return {**data, "photo": data["photo"] + change}


def _generate(key, data, observed, num_samples):
    """Return tags where the photo is above one half."""
    del key, num_samples
    found = {**data, "tags": (jnp.asarray(data["photo"]) > 0.5).astype(jnp.float32)}
    samples = {}
    for m, name in enumerate(NAMES):
        samples[name] = jnp.where(jnp.asarray(observed)[:, m, None], data[name], found[name])[:, None]
    return Generated(samples, None, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})


def _measure(metrics, attack=_attack):
    config = EvaluationConfig(40, 40, 16, num_repeats=2, metrics=metrics)
    tools = Tools(attack=attack)
    return evaluate(Subject(_generate), Split(DATA), NAMES, jax.random.key(0), config, tools)


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


def test_without_an_attacker_nothing_is_measured():
    metrics, missing, _ = _measure({"robustness": {"modality": "tags"}}, attack=None)
    assert not metrics
    assert missing == {"robustness": NO_ATTACKER}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "robustness.modality is ''"),
        ({"modality": "smell"}, "'smell'"),
        ({"modality": "tags", "given": ("smell",)}, "'smell'"),
        ({"modality": "tags", "given": ("tags",)}, "so none is left to compare"),
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


def test_an_attacker_makes_its_own_network_err():
    attacker = Attacker((PHOTO, SEEN), AttackerConfig("photo", "tags"))
    params = attacker.predictor.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    data = {"photo": rng.random((12, 8, 8, 3), dtype=np.float32), "tags": TAGS[:12]}
    strengths = np.repeat(np.float32([0.0, 0.01]), 6)
    found = attacker.attack_fn(params)(data, strengths)
    np.testing.assert_array_equal(found["tags"], data["tags"])
    change = np.abs(np.asarray(found["photo"]) - data["photo"]).reshape(12, -1).max(axis=1)
    np.testing.assert_allclose(change, strengths, atol=1e-6)
    assert np.asarray(found["photo"]).min() >= 0
    assert np.asarray(found["photo"]).max() <= 1
    before, after = (np.asarray(attacker.predictor.loss(params, x["photo"], x["tags"])) for x in (data, found))
    np.testing.assert_allclose(after[:6], before[:6], rtol=1e-6)
    assert (after[6:] > before[6:]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "smell"}, r"config.attacker.source\): 'smell'"),
        ({"source": "words"}, r"config.attacker.source\): 'words'"),
        ({"target": "words"}, r"config.attacker.target\): 'words'"),
        ({"target": "photo"}, "Name another modality"),
    ],
)
def test_an_attacker_that_can_not_attack_is_refused(options, message):
    config = dataclasses.replace(AttackerConfig("photo", "tags"), **options)
    with pytest.raises(SbmError, match=message):
        Attacker((PHOTO, SEEN, WORDS), config)


def test_a_run_trains_what_attacks(tmp_path):
    write_data(tmp_path / "data")
    for path in (tmp_path / "data").iterdir():
        with np.load(path) as arrays:
            binary = {**arrays, "b": (arrays["b"] > 0).astype(np.float32)}
        np.savez(path, **binary)
    config = get_config(str(tmp_path / "data"))
    training = {**config.classifier.training, "num_steps": 200, "steps_per_dispatch": 50}
    config.update({"systems": ("supervised",), "attacker": {"source": "a", "target": "b", "training": training}})
    config.methods.supervised = {"training": training, "pictures": {"name": "patch", "width": 8, "depth": 1}}
    config.evaluation.metrics = {"robustness": {"modality": "b", "given": ("a",), "strengths": (0.5, 2.0)}}
    results = experiment.run(experiment_config.parse_config(config), tmp_path / "work")
    metrics, name = results["systems"]["supervised"]["metrics"], "robustness/given_a/b"
    assert metrics[f"{name}/drop/attack_2"]["value"] > metrics[f"{name}/drop/attack_0.5"]["value"] > 0.0
    assert (tmp_path / "work" / "stages" / "attacker_a_to_b").is_dir()


@pytest.mark.parametrize(
    ("source", "options"),
    [("a", {"modality": "b", "given": ("c",)}), ("b", {"modality": "b"})],
)
def test_an_attack_on_what_is_not_given_is_refused(source, options):
    config = get_config("nowhere")
    target = "c" if source == "b" else "b"
    config.update({"systems": ("supervised",), "attacker": {"source": source, "target": target}})
    config.evaluation.metrics = {"robustness": options}
    with pytest.raises(SbmError, match=f"attacks '{source}', which is not among these"):
        experiment.check(experiment_config.parse_config(config))
