"""Masks and attributes are judged by scikit-learn's scores, given any of the others, in the rows that have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, jaccard_score

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, check_data, check_metrics, evaluate
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.evaluation.metrics.iou import iou
from sbm_jax.evaluation.metrics.per_attribute import balanced_accuracy
from sbm_jax.system import Generated
from sbm_jax.types import Split

NAMES = ("image", "mask", "attributes")
COUNT = 60
RNG = np.random.default_rng(0)
MASKS = (RNG.random((COUNT, 6, 6, 1)) < 0.4).astype(np.float32)
MASKS[:3] = 0
ATTRIBUTES = (RNG.random((COUNT, 4)) < [0.5, 0.1, 0.0, 1.0]).astype(np.float32)
ATTRIBUTES[:2] = 0
IMAGES = RNG.random((COUNT, 3, 3, 3)).astype(np.float32)
TEST = Split({"image": IMAGES, "mask": MASKS, "attributes": ATTRIBUTES})
WORDS = ("Bald", "Wearing Hat", "Pale", "Male")


def flipped(data, share):
    """Return binary data with some entries flipped, as probabilities: other ones for each share."""
    flips = np.random.default_rng(int(100 * share)).random(data.shape[1:]) < share
    return 0.1 + 0.8 * jnp.where(flips, 1 - data, data)


def generate(key, data, observed, num_samples):
    """What is given decides which entries are wrong: the image tells more than the mask."""
    image, mask = (jnp.asarray(observed)[:, m] for m in (0, 1))
    share = {True: 0.25, False: 0.5}
    samples = {"image": data["image"]}
    for name in ("mask", "attributes"):
        column = image.reshape(-1, *(1,) * (data[name].ndim - 1))
        samples[name] = jnp.where(column, *(flipped(data[name], share[given]) for given in (True, False)))
    lost = jnp.where((data["image"][:, 0, 0, 0] > 0.9) & ~mask, jnp.nan, 0)
    samples["attributes"] = samples["attributes"] + lost[:, None]
    return Generated({name: x[:, None] for name, x in samples.items()}, None, {})


def measure(metrics, test=TEST, num_repeats=1):
    config = EvaluationConfig(COUNT, COUNT, 25, num_repeats=num_repeats, metrics=metrics)
    return evaluate(Subject(generate), test, NAMES, jax.random.key(0), config)


def found_given(share, name):
    data = np.asarray(TEST.data[name])
    return (np.asarray(flipped(data, share)) > 0.5).reshape(COUNT, -1)


def equal(value):
    return pytest.approx(value, rel=0, abs=1e-12)


def test_scores_of_rows_are_those_of_scikit_learn():
    true, found = RNG.random((2, 200, 7)) < RNG.random((2, 200, 1))
    true[:20] = found[10:30] = False  # neither, and one of both
    assert (iou(true, found)[10:20] == 0).all()
    assert (f1(true, found)[10:20] == 0).all()
    assert iou(true, found).mean() == equal(jaccard_score(true, found, average="samples", zero_division=0))
    assert f1(true, found).mean() == equal(f1_score(true, found, average="samples", zero_division=0))
    both = iou(true, found)
    np.testing.assert_allclose(f1(true, found), 2 * both / (1 + both), atol=1e-12)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_scores_of_attributes_are_those_of_scikit_learn():
    true, found = RNG.random((2, 200, 9)) < RNG.random((2, 1, 9))
    true[:, 0] = found[:, 1] = False
    true[:, 2] = found[:, 2] = False
    true[:, 3] = True
    np.testing.assert_allclose(f1(true.T, found.T), f1_score(true, found, average=None, zero_division=0), atol=1e-12)
    expected = [balanced_accuracy_score(one, other) for one, other in zip(true.T, found.T, strict=True)]
    np.testing.assert_allclose(balanced_accuracy(true, found), expected, atol=1e-12)


def test_masks_and_attributes_given_what_a_config_names():
    """Entries of one metric have their own `given`; what they ask for in common is generated once."""
    given = {"image": ("image",), "mask": ("mask",), "both": ("image", "mask")}
    metrics = {
        f"from_{label}": {"name": "f1", "modality": "attributes", "given": names} for label, names in given.items()
    }
    masks = {"iou": {"modality": "mask", "given": ("image",)}, "soft": {"name": "iou", "modality": "mask"}}
    found, missing, _ = measure(metrics | masks)
    assert not missing
    assert found.keys() == {
        "from_image/f1/given_image/attributes",
        "from_mask/f1/given_mask/attributes",
        "from_both/f1/given_image+mask/attributes",
        "iou/given_image/mask",
        "soft/iou/given_rest/mask",
    }
    for label, share in (("mask", 0.5), ("image+mask", 0.25)):
        name = next(name for name in found if f"given_{label}/" in name and "f1" in name)
        expected = f1_score(ATTRIBUTES, found_given(share, "attributes"), average="samples", zero_division=0)
        assert found[name].value == equal(expected)
        assert found[name].n == COUNT
    lost = IMAGES[:, 0, 0, 0] > 0.9  # not finite without the mask, and left out
    assert 0 < lost.sum() == COUNT - found["from_image/f1/given_image/attributes"].n
    expected = jaccard_score(MASKS.reshape(COUNT, -1), found_given(0.25, "mask"), average="samples", zero_division=0)
    assert found["iou/given_image/mask"].value == found["soft/iou/given_rest/mask"].value == equal(expected)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_each_attribute_beside_its_base_rate():
    asked = {"modality": "attributes", "given": ("mask",), "names": WORDS}
    found, missing, _ = measure({"per_attribute": asked}, num_repeats=2)
    assert not missing
    label = "given_mask/attributes"
    true, samples = ATTRIBUTES.astype(bool), found_given(0.5, "attributes")
    expected = {
        "f1": f1_score(true, samples, average=None, zero_division=0),
        "balanced_accuracy": [balanced_accuracy_score(*pair) for pair in zip(true.T, samples.T, strict=True)],
        "base_rate": true.mean(axis=0),
    }
    for measured, values in expected.items():
        numbers = [found[f"per_attribute/{measured}/{label}/{word}"] for word in WORDS]
        assert [number.value for number in numbers] == equal(list(values))
        assert found[f"per_attribute/{measured}/{label}"].value == equal(np.mean(values))
        assert {number.n for number in numbers} == {COUNT if measured == "base_rate" else 2 * COUNT}
    assert found[f"per_attribute/f1/{label}/Bald"].std == equal(0)
    assert found[f"per_attribute/base_rate/{label}/Bald"].std is None
    assert len(found) == 3 * (1 + len(WORDS))


def test_attributes_without_names_have_numbers():
    found, _, _ = measure({"per_attribute": {"modality": "attributes"}})
    assert {name.rpartition("/")[2] for name in found} == {"attributes", *"0123"}


def test_samples_that_are_not_finite_are_in_no_score_of_an_attribute():
    found, _, _ = measure({"per_attribute": {"modality": "attributes", "given": ("image",)}})
    kept = ~(IMAGES[:, 0, 0, 0] > 0.9)
    expected = f1_score(ATTRIBUTES[kept], found_given(0.25, "attributes")[kept], average=None, zero_division=0)
    values = [found[f"per_attribute/f1/given_image/attributes/{k}"].value for k in range(4)]
    assert values == equal(list(expected))
    assert found["per_attribute/f1/given_image/attributes/0"].n == kept.sum()
    assert found["per_attribute/base_rate/given_image/attributes/0"].value == equal(ATTRIBUTES[:, 0].mean())


def test_rows_count_that_have_what_is_compared_and_what_is_given():
    """A row without a mask has zeros there, which are no truth and no condition."""
    there = {name: np.ones(COUNT, bool) for name in NAMES} | {"mask": np.arange(COUNT) % 3 == 1}
    test = Split({**TEST.data, "mask": MASKS * there["mask"].reshape(-1, 1, 1, 1)}, {}, there)
    metrics = {
        "iou": {"modality": "mask"},
        "f1": {"modality": "attributes", "given": ("mask",)},
        "all": {"name": "f1", "modality": "attributes", "given": ("image",)},
        "per_attribute": {"modality": "attributes", "given": ("mask",)},
        "mse": {"modality": "mask"},
    }
    found, _, _ = measure(metrics, test)
    kept = there["mask"]
    expected = iou(MASKS[kept] > 0.5, found_given(0.25, "mask")[kept]).mean()
    assert found["iou/given_rest/mask"][::2] == (equal(expected), kept.sum())
    assert found["f1/given_mask/attributes"].n == kept.sum() < found["all/f1/given_image/attributes"].n
    name = "per_attribute/base_rate/given_mask/attributes/0"
    assert found[name][::2] == (equal(ATTRIBUTES[kept, 0].mean()), kept.sum())
    variance = MASKS[kept].var(axis=0, dtype=np.float64).mean()
    ratio = found["mse_over_variance/given_rest/mask"].value / found["mse/given_rest/mask"].value
    assert ratio == pytest.approx(1 / variance)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"iou": {}}, r"metrics\.iou\.modality is ''; expected a binary modality, one of image, mask, attributes"),
        ({"iou": {"modality": "masks"}}, r"unknown modality in .*\.iou: 'masks'\. Did you mean 'mask'"),
        ({"per_attribute": {"modality": "mask", "given": ("mask",)}}, r"per_attribute\.given has 'mask', so nothing"),
        (
            {"per_attribute": {"modality": "mask", "names": ("a", "a")}},
            r"names is \('a', 'a'\); expected distinct names",
        ),
        (
            {"per_attribute": {"modality": "mask", "names": ("a/b",)}},
            r"names is 'a/b'; expected non-empty names without '/'",
        ),
    ],
)
def test_options_that_can_not_work_are_refused(metrics, message):
    with pytest.raises(SbmError, match=message):
        check_metrics(EvaluationConfig(metrics=metrics), NAMES)


IDS = Split({**TEST.data, "attributes": np.ones((COUNT, 4), np.int32)})
LEVELS = Split({**TEST.data, "attributes": np.where(np.arange(COUNT)[:, None] == 7, 0.25, ATTRIBUTES)})


@pytest.mark.parametrize(
    ("metrics", "test", "message"),
    [
        ({"iou": {"modality": "attributes"}}, IDS, r"metrics\.iou\.modality is 'attributes', whose data are ids"),
        ({"f1": {"modality": "attributes"}}, IDS, "whose data are ids; expected binary data"),
        ({"iou": {"modality": "image"}}, TEST, r"not binary: 99\.\d% of the values, such as .*expected at most 50%"),
        (
            {"per_attribute": {"modality": "attributes"}},
            LEVELS,
            r"1\.67% of the values, such as 0\.25, .*expected none",
        ),
        ({"per_attribute": {"modality": "mask"}}, TEST, r"rows have the shape \[6, 6, 1\]; expected vectors"),
        ({"per_attribute": {"modality": "attributes", "names": ("a",)}}, TEST, r"names has 1 names, .* has 4 attrib"),
    ],
)
def test_data_that_can_not_be_judged_are_refused_before_training(metrics, test, message):
    config = EvaluationConfig(COUNT, COUNT, metrics=metrics)
    check_metrics(config, NAMES)
    with pytest.raises(SbmError, match=message):
        check_data(config, test)
    with pytest.raises(SbmError, match=message):
        measure(metrics, test)


def test_masks_may_be_soft_at_their_edges():
    soft = Split({**TEST.data, "mask": np.where(RNG.random(MASKS.shape) < 0.2, 0.75 * MASKS, MASKS)})
    (sharp, found) = (measure({"iou": {"modality": "mask"}}, test)[0]["iou/given_rest/mask"] for test in (TEST, soft))
    assert 0 < found.value == sharp.value < 0.95
