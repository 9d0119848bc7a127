"""Codecs whose latents and errors are known are measured as what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.evaluation import EvaluationConfig, Subject, evaluate
from sbm_jax.evaluation.metrics.codecs import Moments, kl_of_entries
from sbm_jax.types import Split

RNG = np.random.default_rng(0)
NAMES = ("image", "wave", "ids")
TRAIN, TEST = (
    {
        "image": RNG.integers(0, 256, (number, 3, 2, 1), dtype=np.uint8),
        "wave": RNG.normal(100.0, 1.0, (number, 5)).astype(np.float32),
        "ids": RNG.integers(0, 9, (number, 4), dtype=np.int32),
    }
    for number in (70, 40)
)


def measure(reconstruct, posteriors, train=None, test=None):
    config = EvaluationConfig(40, 1, 16, num_repeats=1, num_figure_examples=1, metrics={"codecs": {}})

    def generate(key, data, observed, num_samples):
        raise AssertionError("nothing is to be generated")

    subject = Subject(generate, posteriors=posteriors, codec_reconstructions=reconstruct)
    with pytest.MonkeyPatch.context() as patch:  # the sample grids alone ask for samples
        patch.setattr("sbm_jax.evaluation.generation.run", lambda *arguments: None)
        patch.setattr("sbm_jax.evaluation.sample_grids.Grids.figures", lambda *arguments: {})
        return evaluate(subject, Split(test or TEST), NAMES, jax.random.key(0), config, train=train)


def latents(data):
    """An image has two entries that know the row, of four; a wave one of three, by its variance; ids none."""
    x = jnp.asarray(data["image"]).reshape(len(data["image"]), -1)
    mean = jnp.stack([3 * x[:, 0], 3 * x[:, 1], 0 * x[:, 0], 0.1 + 0 * x[:, 0]], axis=1)
    wave = jnp.asarray(data["wave"])[:, :1]
    return {
        "image": (mean, jnp.full_like(mean, -2.0).at[:, 2:].set(0.0)),
        "wave": (jnp.concatenate([1e-4 * wave, 1e-6 * wave, 7 + 0 * wave], axis=1), None),
        "ids": (jnp.zeros((len(x), 3)), jnp.zeros((len(x), 3))),
    }


def shrunk(data):
    """Return images half way to the mean of their values, and the mean of all waves."""
    return {"image": 0.25 + 0.5 * data["image"], "wave": jnp.full_like(data["wave"], 100.0), "ids": data["ids"]}


def test_entries_and_nats_are_those_of_the_latents():
    metrics, missing, _ = measure(shrunk, latents)
    found = {name.removeprefix("codecs/"): estimate for name, estimate in metrics.items()}
    assert found["entries_in_use/image"][:3] == (2.0, None, 4)
    assert found["entries_in_use/wave"][:3] == (1.0, None, 3)
    assert found["entries_in_use/ids"][:3] == (0.0, None, 3)
    x = TEST["image"].reshape(40, -1) / 255
    expected = sum(0.5 * (9 * x[:, i] ** 2 + np.exp(-2.0) + 1.0) for i in (0, 1)) + 0.5 * 0.1**2
    assert found["kl/image"].value == pytest.approx(expected.mean(), rel=1e-5)
    assert found["kl/image"].n == 40
    assert found["kl/ids"].value == 0
    assert "kl/wave" not in found
    assert missing == {"codecs/error_over_variance/ids": "ids have no squared error"}


def test_errors_are_in_units_of_the_variance():
    metrics, _, _ = measure(shrunk, latents)
    image = TEST["image"].reshape(40, -1) / 255
    expected = np.square(0.25 - 0.5 * image).sum() / 40 / image.var(axis=0).sum()
    assert metrics["codecs/error_over_variance/image"].value == pytest.approx(expected, rel=1e-5)
    expected = np.square(TEST["wave"] - 100.0).sum() / 40 / TEST["wave"].var(axis=0, dtype=np.float64).sum()
    assert metrics["codecs/error_over_variance/wave"].value == pytest.approx(expected, rel=1e-5)
    assert metrics["codecs/error_over_variance/wave"].n == 40
    assert not [name for name in metrics if "train" in name]


def test_training_rows_are_as_many_and_only_those_that_are_present():
    def remembers(data):
        """Training waves are larger than 50 here, and known by heart; what rows lack is far off."""
        wave = jnp.asarray(data["wave"])
        return {**data, "wave": jnp.where(wave > 1000.0, 0.0, wave + jnp.where(wave > 150.0, 0.0, 1.0))}

    has = np.arange(70) % 2 == 0
    waves = np.where(has[:, None], TRAIN["wave"] + 100, 1e6).astype(np.float32)
    train = Split({**TRAIN, "wave": waves}, {}, {"wave": has, "image": np.ones(70, bool), "ids": np.ones(70, bool)})
    metrics, missing, _ = measure(remembers, latents, train)
    assert metrics["codecs/error_over_variance/wave"].value == pytest.approx(1.0, abs=0.3)
    assert metrics["codecs/train_error_over_variance/wave"].value == 0
    assert 10 < metrics["codecs/train_error_over_variance/wave"].n < 30
    assert metrics["codecs/train_error_over_variance/image"].n == 40
    assert "codecs/train_error_over_variance/ids" in missing


def test_what_can_not_be_measured_is_told():
    def lost(data):
        return {name: jnp.full_like(jnp.asarray(x), jnp.nan) if name == "wave" else x for name, x in data.items()}

    still = {**TEST, "image": np.full_like(TEST["image"], 7)}
    metrics, missing, _ = measure(lost, latents, test=still)
    assert missing["codecs/error_over_variance/wave"] == "no row has it and a finite reconstruction"
    assert missing["codecs/error_over_variance/image"] == "the data do not vary"
    assert metrics["codecs/entries_in_use/image"].value == 2
    nowhere, missing, _ = measure(shrunk, None)
    assert not nowhere
    assert missing == {"codecs/entries_in_use": "the modalities of the system have no codecs of their own"}


def test_kl_is_that_of_normal_distributions():
    assert kl_of_entries(np.zeros(1), np.zeros(1)) == 0
    z = np.random.default_rng(0).normal(1.5, 0.5, 200_000)
    log_ratio = -0.5 * ((z - 1.5) / 0.5) ** 2 - np.log(0.5) + 0.5 * z**2
    assert kl_of_entries(np.array(1.5), np.log(np.array(0.25))) == pytest.approx(log_ratio.mean(), abs=0.01)


def test_variances_of_large_values_keep_their_digits():
    rows, moments = np.random.default_rng(0).normal(1e7, 1e-2, (90, 3)), Moments()
    for part in np.split(rows, 3):
        moments.add(part)
    moments.add(rows[:0])
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-6)
