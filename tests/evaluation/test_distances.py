"""Distances from real data, on samples whose distance is known, and their cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, check_metrics, evaluate, frechet, real
from sbm_jax.evaluation.features import FeatureSpace, in_batches
from sbm_jax.evaluation.metrics.frechet import FrechetOptions
from sbm_jax.system import Generated
from sbm_jax.types import Split

NAMES = ("a", "b", "c")
COUNT = 60


def split(seed, count=COUNT):
    rng = np.random.default_rng(seed)
    return Split(
        {name: rng.integers(0, 256, (count, 3, 3, 1), dtype=np.uint8) for name in NAMES},
        {"label": np.arange(count) % 3},
    )


def space(tmp_path, calls=None):
    def extract(images):
        if calls is not None:
            calls.append(len(images))
        images = images / 255.0 if images.dtype == np.uint8 else images
        return np.asarray(images, np.float32).reshape(len(images), -1)[:, :4]

    return FeatureSpace("pixels", {"a": extract, "c": extract}, "v1", tmp_path, {"kernel": "kid"})


def generator(shift):
    """A generator of fresh uniform pixels, shifted in modality c; latents are the pixels of the given data, or 1."""

    def generate(key, data, observed, num_samples):
        keys = jax.random.split(key, 3)
        samples, latents = {}, {}
        for m, (name, one) in enumerate(zip(NAMES, keys, strict=True)):
            fresh = jax.random.uniform(one, data[name].shape) + (shift if name == "c" else 0.0)
            given = jnp.asarray(observed)[:, m].reshape(-1, 1, 1, 1)
            samples[name] = jnp.where(given, data[name], fresh)[:, None]
            true = data[name].reshape(len(fresh), 1, -1)
            latents[name] = true * (-1.0 if name == "b" else 2.0)
        return Generated(samples, latents, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})

    return generate


def encode(data):
    return {name: jnp.asarray(values).reshape(len(values), -1) for name, values in data.items()}


def classify(data):
    return {name: jnp.zeros(len(x), int) for name, x in data.items()}


def config_of(*others, num_repeats=1, batch_size=30, **frechet):
    """Return a config with distances, and other metrics."""
    metrics = {"frechet": {"num_examples": COUNT, **frechet}} | {name: {} for name in others}
    return EvaluationConfig(COUNT, COUNT, batch_size, num_repeats, metrics=metrics)


def tools(chosen, **classifiers):
    return Tools(classifiers, dict.fromkeys(classifiers, 3), lambda name, asked: (chosen, {}))


def judge(shift, tmp_path, chosen=None, encode=encode, **frechet):
    sets = ("given_rest", "unconditional", "fixed_order", "to_target")
    config = config_of("cosine", "class_shares", num_repeats=2, batch_size=25, **{"sets": sets} | frechet)
    subject = Subject(generator(shift), lambda x: x, encode)
    judges = tools(chosen or space(tmp_path), label=classify)
    return evaluate(subject, split(0), NAMES, jax.random.key(0), config, judges)


def test_shifted_samples_are_farther_away(tmp_path):
    metrics = judge(0.5, tmp_path).metrics
    for kind in ("given_rest", "unconditional"):
        near, far = (metrics[f"pixels/frechet/{kind}/{name}"] for name in "ac")
        assert far.value > near.value + 0.5
        assert near.n == far.n == COUNT
        assert metrics[f"pixels/frechet/{kind}"].value == pytest.approx((near.value + far.value) / 2)
        assert metrics[f"pixels/frechet/{kind}"].std == pytest.approx((near.std + far.std) / 2)
        spreads = [metrics[f"pixels/{name}"].spread for name in (f"frechet/{kind}/a", f"frechet/{kind}")]
        assert spreads == ["standard_error", "standard_error_bound"]
        assert metrics[f"pixels/kid/{kind}/a"].spread == "subsets"
        assert metrics[f"pixels/kid/{kind}"].std is None
        assert metrics[f"pixels/kid/{kind}/c"].value > metrics[f"pixels/kid/{kind}/a"].value
        assert metrics[f"pixels/coverage/{kind}/a"].value > metrics[f"pixels/coverage/{kind}/c"].value
    assert not [name for name in metrics if name.startswith("pixels") and name.endswith("/b")]  # no features of it
    # The fixed order generates the last modality, the other one the first.
    assert metrics["pixels/frechet/fixed_order/given_2/c"].value > 1
    assert metrics["pixels/frechet/to_target/given_1/a"].value < 0.5


def test_reconstructions_of_the_real_data_have_no_distance(tmp_path):
    metrics = judge(0.5, tmp_path, sets=("reconstruction",), modalities=("a",)).metrics
    assert metrics["pixels/frechet/reconstruction/a"].value == pytest.approx(0.0, abs=1e-5)
    assert metrics["pixels/precision/reconstruction/a"].value == 1
    assert "pixels/frechet/given_rest/a" not in metrics


def test_real_training_data_are_the_floor(tmp_path):
    metrics = real(split(1), split(0), NAMES, jax.random.key(0), config_of(), tools(space(tmp_path)))
    assert 0 < metrics["pixels/frechet/real/a"].value < 0.2
    assert metrics["pixels/frechet/real"].n == 2 * COUNT
    assert real(split(1), split(0), NAMES, jax.random.key(0), config_of(), tools(None)) == {}


def test_each_of_several_entries_has_a_floor_of_its_own(tmp_path):
    few = {"name": "frechet", "num_examples": 40}
    config = EvaluationConfig(COUNT, COUNT, 30, 1, metrics={"frechet": {"num_examples": COUNT}, "few": few})
    metrics = real(split(1), split(0), NAMES, jax.random.key(0), config, tools(space(tmp_path)))
    assert [metrics[f"{label}pixels/frechet/real"].n for label in ("", "few/")] == [2 * COUNT, 2 * 40]


def test_only_real_data_that_are_there_are_the_floor(tmp_path):
    rows = np.arange(2 * COUNT)
    train, present = split(1, 2 * COUNT), {name: (rows % 2 == 0) | (name != "a") for name in NAMES}
    lacking = dataclasses.replace(train, present=present)
    half = train.take(rows[rows % 2 == 0])
    found, expected = (
        real(some, split(0), NAMES, jax.random.key(0), config_of(), tools(space(tmp_path))) for some in (lacking, half)
    )
    assert found["pixels/frechet/real/a"] == expected["pixels/frechet/real/a"]


def test_cosines_compare_with_encoded_latents(tmp_path):
    metrics = judge(0.0, tmp_path).metrics
    assert metrics["latents/cosine/given_rest/a"].value == pytest.approx(1.0, abs=1e-5)
    assert metrics["latents/cosine/given_rest/b"].value == pytest.approx(-1.0, abs=1e-5)
    assert metrics["latents/cosine/given_rest"].value == pytest.approx(1 / 3, abs=1e-5)
    assert metrics["latents/cosine/given_rest"].n == 2 * 3 * COUNT
    assert metrics["latents/cosine/given_rest"].spread == "repeats"
    assert metrics["latents/cosine/given_rest/a"].spread == "repeats"


def test_modalities_on_request_are_judged_only_where_they_are_named(tmp_path):
    chosen = dataclasses.replace(space(tmp_path), on_request=("c",))
    metrics, not_available, _ = judge(0.0, tmp_path, chosen)
    assert metrics["pixels/frechet/given_rest"] == metrics["pixels/frechet/given_rest/a"]
    assert "name it in evaluation.metrics.frechet.modalities" in not_available["pixels/frechet/c"]
    assert not_available["pixels/frechet/b"] == "pixels has no features of it"
    metrics, not_available, _ = judge(0.0, tmp_path, chosen, modalities=("c", "b"))
    assert metrics["pixels/frechet/given_rest"] == metrics["pixels/frechet/given_rest/c"]
    assert not_available["pixels/frechet/b"] == "pixels has no features of it"
    metrics, not_available, _ = judge(0.0, tmp_path, chosen, modalities=("b",))
    assert not [name for name in metrics if name.startswith("pixels")]
    assert "pixels/frechet" in not_available


def test_samples_that_are_not_finite_are_left_out(tmp_path):
    def lossy(key, data, observed, num_samples):
        made = generator(0.0)(key, data, observed, num_samples)
        return made._replace(data={name: x.at[0].set(jnp.nan) for name, x in made.data.items()})

    def extract(images):  # of a network that hides what is not finite
        return np.nan_to_num(np.asarray(images, np.float32)).reshape(len(images), -1)[:, :4]

    hidden = FeatureSpace("pixels", {"a": extract}, "v3", tmp_path)
    metrics, _, _ = evaluate(Subject(lossy), split(0), NAMES, jax.random.key(0), config_of(), tools(hidden))
    found = {name: e.n for name, e in metrics.items() if name.startswith("pixels")}
    assert found
    assert set(found.values()) == {COUNT - 2}  # one of each of two calls


def test_neither_labels_nor_a_classifier_are_needed(tmp_path):
    data = Split(split(0).data)
    subject = Subject(generator(0.5), encode=encode)
    config = config_of("cosine", "diversity", "coherence", "class_shares")
    metrics, not_available, figures = evaluate(subject, data, NAMES, jax.random.key(0), config, tools(space(tmp_path)))
    for name in ("pixels/frechet/given_rest", "pixels/kid/unconditional/a", "latents/cosine/given_rest/b"):
        assert name in metrics
    assert not_available["diversity/given_1"] == "the data have no labels"
    assert not [name for name in metrics if name.startswith(("coherence", "coverage", "classifier/"))]
    assert figures["samples/given_rest/observed"].shape == (4, 4, 3)


def test_a_perfect_generator_gets_what_real_data_get(tmp_path):
    """Few samples against many real examples: at equal counts both have the same precision, recall and coverage."""
    train, held_out = split(1, 600), split(2, 600)

    def copy(key, data, observed, num_samples):  # real examples, but others
        rows = jax.random.randint(key, (len(observed),), 0, 600)
        samples = {name: jnp.asarray(x / 255.0)[rows][:, None] for name, x in split(3, 600).data.items()}
        return Generated(samples, None, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})

    config = config_of(sets=("unconditional",), modalities=("a",))
    chosen = tools(space(tmp_path))
    found = evaluate(Subject(copy), held_out, NAMES, jax.random.key(0), config, chosen).metrics
    floor = real(train, held_out, NAMES, jax.random.key(0), config, chosen)
    for name in ("precision", "recall", "density", "coverage"):
        ours, theirs = found[f"pixels/{name}/unconditional/a"], floor[f"pixels/{name}/real/a"]
        assert ours.n == theirs.n == COUNT
        assert ours.value == pytest.approx(theirs.value, abs=0.2)
    assert found["pixels/coverage/unconditional/a"].value > 0.8


def test_constant_features_have_finite_distances(tmp_path):
    def constant(images):
        return np.ones((len(images), 4), np.float32)

    chosen = FeatureSpace("ones", {"a": constant}, "v1", tmp_path)
    metrics = judge(0.0, tmp_path, chosen).metrics
    found = {name: value for name, value in metrics.items() if name.startswith("ones")}
    assert found["ones/frechet/given_rest/a"].value == 0
    assert all(np.isfinite(e.value) and (e.std is None or np.isfinite(e.std)) for e in found.values())


def test_latents_without_a_direction_have_no_cosine(tmp_path):
    def zeros(data):
        return {name: np.zeros_like(values) if name == "a" else values for name, values in encode(data).items()}

    metrics = judge(0.0, tmp_path, encode=zeros).metrics
    assert "latents/cosine/given_rest/a" not in metrics
    assert metrics["latents/cosine/given_rest"].n == 2 * 2 * COUNT


def test_without_encoders_or_features_nothing_is_compared(tmp_path):
    subject = Subject(generator(0.0))
    metrics, not_available, _ = evaluate(subject, split(0), NAMES, jax.random.key(0), config_of("cosine"))
    assert not [name for name in metrics if name.startswith(("pixels", "latents"))]
    assert "latents" in not_available["latents/cosine/given_rest"]


def test_features_of_real_data_are_kept(tmp_path):
    images = split(0).data["a"]
    first, again = [], []
    kept = space(tmp_path, first).real("a", images).features
    np.testing.assert_array_equal(space(tmp_path, again).real("a", images).features, kept)
    assert first == [COUNT]
    assert again == []
    space(tmp_path, again).real("a", images[:50])  # others
    dataclasses.replace(space(tmp_path, again), fingerprint="v2").real("a", images)  # of another network
    assert again == [50, COUNT]
    damaged = next(
        path for path in tmp_path.iterdir() if path.stat().st_size == max(p.stat().st_size for p in tmp_path.iterdir())
    )
    damaged.write_bytes(b"damaged")
    third = []
    for name in ("v1", "v2"):
        dataclasses.replace(space(tmp_path, third), fingerprint=name).real("a", images)
    assert third == [COUNT]


def test_batches_are_padded():
    sizes = []

    def extract(batch):
        sizes.append(len(batch))
        return batch.sum(axis=(1, 2, 3))[:, None]

    images = split(0).data["a"]
    np.testing.assert_array_equal(in_batches(extract, 16)(images), extract(images))
    assert sizes[:-1] == [16] * 4


def test_bad_settings_are_named():
    with pytest.raises(SbmError, match="0, or 40 or more"):
        FrechetOptions(10)
    with pytest.raises(SbmError, match="'given_rest'"):
        FrechetOptions(100, 0, ("given_rst",))
    with pytest.raises(SbmError, match="no more than 50"):
        check_metrics(EvaluationConfig(num_examples=50, metrics={"frechet": {"num_examples": 60}}), NAMES)
    with pytest.raises(SbmError, match=r"unknown modality in config.evaluation.metrics.frechet.modalities: 'd'"):
        check_metrics(config_of(modalities=("d",)), NAMES)


def test_training_rows_may_be_the_reference(tmp_path):
    train, chosen = split(5, 200), space(tmp_path)
    config = config_of(reference="train", num_real=100)
    subject, judges = Subject(generator(0.0), lambda x: x, encode), tools(chosen)
    found = evaluate(subject, split(0), NAMES, jax.random.key(0), config, judges, train=train).metrics
    order = np.random.default_rng(0).permutation(200)
    reference = chosen.extract["a"](train.data["a"][order[COUNT : COUNT + 100]])
    other = chosen.extract["a"](train.data["a"][order[:COUNT]])
    expected = frechet.measure(other, frechet.gaussian(frechet.moments(reference)))["frechet"]
    assert real(train, split(0), NAMES, jax.random.key(0), config, judges)["pixels/frechet/real/a"] == expected
    assert found["pixels/frechet/given_rest/a"].n == COUNT
    with pytest.raises(SbmError, match="Lower num_examples"):
        evaluate(subject, split(0), NAMES, jax.random.key(0), config, judges, train=split(5, 80))


def test_all_repeats_may_give_samples(tmp_path):
    config = config_of(num_repeats=2, all_repeats=True)
    config = dataclasses.replace(config, metrics={"frechet": {**config.metrics["frechet"], "num_examples": 2 * COUNT}})
    found = evaluate(Subject(generator(0.0)), split(0), NAMES, jax.random.key(0), config, tools(space(tmp_path)))
    assert found.metrics["pixels/frechet/given_rest/a"].n == 2 * COUNT
    once = dataclasses.replace(config, metrics={"frechet": {**config.metrics["frechet"], "all_repeats": False}})
    with pytest.raises(SbmError, match="no more than 60"):
        check_metrics(once, NAMES)


def test_an_unknown_reference_is_refused():
    with pytest.raises(SbmError, match="reference"):
        FrechetOptions(reference="validation")


def test_samples_from_one_modality_are_judged_where_it_is_not_given(tmp_path):
    metrics = judge(0.5, tmp_path, sets=("from_one",)).metrics
    found = {name for name in metrics if name.startswith("pixels/frechet/") and "infinity" not in name}
    kinds = {name.removeprefix("pixels/frechet/") for name in found}
    assert {"from/a/c", "from/b/a", "from/b/c", "from/c/a"} <= kinds
    assert not {"from/a/a", "from/c/c"} & kinds
    assert metrics["pixels/frechet/from/b/c"].value > metrics["pixels/frechet/from/b/a"].value + 0.5
