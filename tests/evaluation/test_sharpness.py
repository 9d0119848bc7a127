"""Sharpness, on pictures that are blurred by a known amount."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, evaluate
from sbm_jax.evaluation.metrics.sharpness import SharpnessOptions, roughness
from sbm_jax.formats import make_format
from sbm_jax.system import Generated
from sbm_jax.types import FormatConfig, Modality, Split

NAMES = ("picture", "words")
RNG = np.random.default_rng(0)
DATA = {
    "picture": RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8),
    "words": np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 40)],
}
METRICS = {"sharpness": {"sets": ("given_rest", "unconditional")}}


def measure(contrast, data=DATA, names=NAMES, pictures=("picture",)):
    def generate(key, given, observed, num_samples):
        """Real pictures, with their contrast changed."""
        number = len(next(iter(given.values())))
        samples = {name: jnp.asarray(data[name][:number], jnp.float32)[:, None] for name in names}
        samples["picture"] = contrast * samples["picture"] / 255.0
        return Generated(samples, None, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})

    config = EvaluationConfig(40, 40, 40, num_repeats=2, metrics=METRICS)
    test = Split({n: data[n] for n in names})
    return evaluate(Subject(generate), test, names, jax.random.key(0), config, Tools(pictures=pictures))


@pytest.mark.parametrize("contrast", [1.0, 0.5])
def test_sharpness_is_the_contrast_of_neighbours(contrast):
    found = measure(contrast)
    assert {*found.metrics} == {
        f"sharpness/{name}{end}" for name in METRICS["sharpness"]["sets"] for end in ("", "/picture")
    }
    for estimate in found.metrics.values():
        assert estimate.value == pytest.approx(contrast, abs=1e-5)
    assert found.metrics["sharpness/given_rest"].n == 80


def test_what_has_no_sharpness_is_said():
    flat = {**DATA, "picture": np.full_like(DATA["picture"], 7)}
    assert "that vary" in measure(1.0, flat).not_available["sharpness/given_rest"]
    alone = measure(1.0, names=("picture",))
    assert alone.metrics["sharpness/unconditional"].value == pytest.approx(1.0, abs=1e-5)
    assert "one modality" in alone.not_available["sharpness/given_rest"]


def test_what_only_looks_like_pictures_has_none():
    assert "no modality has images" in measure(1.0, pictures=()).not_available["sharpness/given_rest"]
    modality = Modality("picture", (6, 5, 3), 2)
    assert make_format(modality).is_picture
    assert not make_format(dataclasses.replace(modality, shape=(6, 5, 8))).is_picture
    assert not make_format(dataclasses.replace(modality, shape=(4, 6, 5, 3))).is_picture  # a film
    sound = {"name": "spectrogram", "options": {"rate": 800, "length": 400, "window": 64, "hop": 25, "num_mels": 8}}
    heard = Modality("sound", (16, 8, 1), 2, bounds=(0.0, 1.0), format=FormatConfig(**sound))
    assert not make_format(heard).is_picture


def test_roughness_is_a_mean_over_both_directions():
    picture = np.zeros((1, 2, 3, 1))
    picture[0, 0, 0] = 6.0
    assert roughness(picture)[0] == pytest.approx((6 / 3 + 6 / 4) / 2)
    assert roughness(np.ones((2, 1, 1, 3))).tolist() == [0.0, 0.0]


def test_an_unknown_set_is_refused():
    with pytest.raises(SbmError, match="unknown set of samples"):
        SharpnessOptions(("random",))
