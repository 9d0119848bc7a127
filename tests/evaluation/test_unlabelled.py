"""Images and attributes without labels are judged by every metric that needs none; several labels by each question."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, check_metrics, evaluate
from sbm_jax.evaluation.features import FeatureSpace
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.system import Generated
from sbm_jax.types import Split

NAMES = ("image", "attributes")
RNG = np.random.default_rng(0)
ATTRIBUTES = (RNG.random((60, 6)) < 0.4).astype(np.float32)
IMAGES = RNG.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
DATA = {"image": IMAGES, "attributes": ATTRIBUTES}


def generate(key, data, observed, num_samples):
    """Images lose a tenth, attributes their last entry."""
    found = {"image": jnp.asarray(data["image"]) + 0.1, "attributes": jnp.asarray(data["attributes"]).at[:, -1].set(0)}
    samples = {}
    for m, name in enumerate(NAMES):
        given = jnp.asarray(observed)[:, m].reshape(-1, *(1,) * (found[name].ndim - 1))
        samples[name] = jnp.where(given, data[name], found[name])[:, None]
    latents = {name: x.reshape(len(x), 1, -1) for name, x in samples.items()}
    return Generated(samples, latents, {"network_evaluations": jnp.array(3), "diverged": jnp.array(0)})


def encode(data):
    return {name: jnp.asarray(x).reshape(len(x), -1) for name, x in data.items()}


def log_weights(key, data, num_samples):
    return jax.random.normal(key, (len(data["image"]), num_samples))


def extract(images):
    return np.asarray(images, np.float32).reshape(len(images), -1)[:, :3]


SUBJECT = Subject(generate, lambda batch: batch, encode, log_weights)
METRICS = {
    **{name: {} for name in ("coherence", "class_shares", "diversity", "classifier")},
    **{name: {} for name in ("cosine", "reconstruction", "sampling", "mse")},
    "frechet": {"num_examples": 50, "sets": ("given_rest", "unconditional", "reconstruction")},
    "likelihood": {"num_examples": 10, "num_samples": 4, "samples_per_call": 4},
    "f1": {"modality": "attributes"},
}


def measure(split, tmp_path, metrics=METRICS, **classifiers):
    space = FeatureSpace("pixels", {"image": extract}, "v1", tmp_path)
    tools = Tools(classifiers, dict.fromkeys(classifiers, 2), lambda name, asked: (space, {}))
    config = EvaluationConfig(50, 50, 25, num_repeats=2, metrics=metrics)
    return evaluate(SUBJECT, split, NAMES, jax.random.key(0), config, tools)


def test_every_metric_that_needs_no_labels_is_measured(tmp_path):
    metrics, not_available, _ = measure(Split(DATA), tmp_path)
    assert {
        *(f"latents/cosine/given_rest/{name}" for name in NAMES),
        *(f"reconstruction/mse/{name}" for name in NAMES),
        *(f"{kind}/given_rest/{name}" for name in NAMES for kind in ("mse", "mse_over_variance")),
        *(f"pixels/frechet/{samples}/image" for samples in ("given_rest", "unconditional", "reconstruction")),
        *(f"sampling/{name}" for name in ("network_evaluations", "diverged", "samples_per_second")),
        *(f"likelihood/{name}" for name in ("elbo", "importance_weighted")),
        "f1/given_rest/attributes",
    } <= metrics.keys()
    reasons = {"there is no classifier", "the data have no labels"}
    unmeasured = {name for name, reason in not_available.items() if any(part in reason for part in reasons)}
    assert {name.split("/")[0] for name in unmeasured} == {"coherence", "coverage", "diversity", "classifier"}
    assert metrics["mse/given_rest/image"].value == pytest.approx(0.01, rel=1e-4)
    assert metrics["mse/given_rest/attributes"].n == 2 * 50


def test_f1_is_that_of_scikit_learn(tmp_path):
    metrics, _, _ = measure(Split(DATA), tmp_path)
    order = np.asarray(jax.random.permutation(jax.random.split(jax.random.key(0))[0], 60))[:50]
    true, found = ATTRIBUTES[order].astype(int), ATTRIBUTES[order].astype(int)
    found[:, -1] = 0
    expected = f1_score(true, found, average="samples", zero_division=0)
    assert metrics["f1/given_rest/attributes"][:3] == (pytest.approx(expected), pytest.approx(0), 100)
    a, b = RNG.random((2, 40, 5)) < 0.5
    a[0] = b[0] = a[1] = b[2] = False  # nothing there, nothing found, and one of both
    assert (f1(a, b)[:3] == 0).all()
    expected = f1_score(a, b, average="samples", zero_division=0)
    assert f1(a, b).mean() == pytest.approx(expected, rel=0, abs=1e-12)


def test_entries_of_one_metric_have_their_numbers_under_their_labels(tmp_path):
    low, high = ({"name": "f1", "modality": "attributes", "threshold": threshold} for threshold in (-1, 0.9))
    metrics, _, _ = measure(Split(DATA), tmp_path, {"f1": {"modality": "attributes"}, "low": low, "high": high})
    assert metrics.keys() == {f"{label}f1/given_rest/attributes" for label in ("", "low/", "high/")}
    assert metrics["low/f1/given_rest/attributes"].value == 1 > metrics["high/f1/given_rest/attributes"].value
    assert measure(Split(DATA), tmp_path, {"high": high})[0].keys() == {"f1/given_rest/attributes"}


def test_a_modality_may_be_generated_from_some_others_only(tmp_path):
    metrics, _, _ = measure(Split(DATA), tmp_path, {"mse": {"modality": "image", "given": ("attributes",)}})
    assert metrics.keys() == {"mse/given_attributes/image", "mse_over_variance/given_attributes/image"}
    expected = metrics["mse/given_attributes/image"].value / (DATA["image"] / 255.0).var(axis=0).mean()
    assert metrics["mse_over_variance/given_attributes/image"].value == pytest.approx(expected, rel=0.05)


def test_of_constants_there_is_no_relative_error(tmp_path):
    constant = Split({**DATA, "attributes": np.ones_like(ATTRIBUTES)})
    metrics, missing, _ = measure(constant, tmp_path, {"mse": {"modality": "attributes"}})
    assert metrics.keys() == {"mse/given_rest/attributes"}
    assert missing["mse_over_variance/given_rest/attributes"] == "the examples do not differ"


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"f1": {"modality": "attribute"}}, r"unknown modality in config\.evaluation\.metrics\.f1: 'attribute'"),
        ({"f1": {}}, r"metrics\.f1\.modality is ''; expected a binary modality, one of image, attributes"),
        ({"mse": {"modality": "image", "given": ("image",)}}, r"metrics\.mse\.given has 'image', so nothing is left"),
        ({"mse": {"given": NAMES}}, r"metrics\.mse\.given has every modality, so nothing is left"),
    ],
)
def test_what_can_not_be_compared_is_told_before_training(metrics, message):
    with pytest.raises(SbmError, match=message):
        check_metrics(EvaluationConfig(metrics=metrics), NAMES)


def test_what_is_not_finite_has_no_score(tmp_path):
    split = Split({**DATA, "attributes": np.where(np.arange(60)[:, None] < 30, np.nan, ATTRIBUTES)})
    metrics, not_available, _ = measure(split, tmp_path, {"f1": {"modality": "attributes"}})
    assert metrics["f1/given_rest/attributes"].n < 100
    nothing = Split({**DATA, "attributes": np.full_like(ATTRIBUTES, np.nan)})
    _, not_available, _ = measure(nothing, tmp_path, {"f1": {"modality": "attributes"}})
    assert not_available == {"f1/given_rest/attributes": "no sample is finite"}


def test_several_labels_are_judged_by_question(tmp_path):
    """One question has the answer that the first attribute gives, the other is about its last, which is lost."""

    def about(entry):
        def classify(data):
            seen = jnp.asarray(data["attributes"])[:, entry].astype(int)
            return {"image": seen, "attributes": seen}

        return classify

    labels = {"label": ATTRIBUTES[:, 0].astype(np.int32), "last": ATTRIBUTES[:, -1].astype(np.int32)}
    asked = {"coherence": {}, "class_shares": {}, "classifier": {}, "reconstruction": {}}
    metrics, _, figures = measure(Split(DATA, labels), tmp_path, asked, label=about(0), last=about(-1))
    assert metrics["coherence/given_rest/attributes"].value == 1
    assert metrics["coherence/last/given_rest/attributes"].value < 1
    assert metrics["coherence/given_1"].value == 1
    assert metrics["classifier/accuracy"].value == metrics["classifier/last/accuracy"].value == 1
    assert metrics["classifier/last/reconstruction/image"].value == 1
    assert metrics["coverage/class_0"].value + metrics["coverage/class_1"].value == 1
    assert metrics["coverage/last/class_1"].value == 0  # of joint samples
    assert figures["class_shares/last"].shape == figures["class_shares"].shape == (2, 2)
