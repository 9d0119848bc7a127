"""Presets: every one is an experiment that can be trained, whatever is to be modelled."""

import numpy as np
import pytest

from sbm_jax import experiment, presets
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import complete, parse_config
from sbm_jax.kinds import guess

RNG = np.random.default_rng(0)
DATA = {
    "photo": RNG.integers(0, 256, (40, 96, 64, 3)).astype(np.uint8),
    "mask": RNG.random((40, 96, 64)) < 0.5,
    "tags": RNG.random((40, 18)) < 0.2,
    "caption": np.array([f"a bird number {i}" for i in range(40)]),
    "age": RNG.normal(40, 10, 40),
    "clip": RNG.integers(0, 256, (40, 20, 24, 32, 1)).astype(np.uint8),
}


def config(preset, num_rows, names=tuple(DATA)):
    guesses = {name: guess(name, DATA[name], {}) for name in names}
    made = presets.make_config(guesses, presets.Rows(num_rows, num_rows // 8), preset, True, 0)
    complete(made)
    return parse_config(made)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_can_be_trained(preset):
    experiment.check(config(preset, 900, [name for name in DATA if preset != "paper" or name != "clip"]))


def test_the_papers_networks_are_not_for_videos():
    with pytest.raises(SbmError, match="'paper' has no networks for videos, such as modality 'clip'"):
        config("paper", 900)


def test_few_rows_are_trained_for_fewer_steps_in_smaller_batches():
    few, some, many = (config("small", number) for number in (40, 900, 50_000))
    assert few.autoencoder.training.batch_size == 32
    assert few.score.training.batch_size <= 40
    steps = [one.autoencoder.training.num_steps for one in (few, some, many)]
    assert steps[0] == steps[1] < steps[2] == presets.SMALL.codec_steps
    steps = [one.score.training.num_steps for one in (few, some, many)]
    assert steps[0] < steps[1] < steps[2] == presets.SMALL.score_steps
    assert steps[1] * some.score.training.batch_size == pytest.approx(presets.SMALL.passes * 900, rel=0.1)


def test_what_is_discrete_pays_for_little():
    by_name = {modality.name: modality for modality in config("small", 900).modalities}
    assert by_name["photo"].codec.beta is None  # that of the config
    assert config("small", 900).autoencoder.beta > 1 > by_name["tags"].codec.beta > by_name["caption"].codec.beta
    assert by_name["age"].codec.beta < 1
    assert by_name["photo"].codec.network["patch"] == 8


def test_one_modality_has_no_marginal_guidance():
    assert config("small", 900, ("photo",)).systems == ("sbm_vae",)


def test_unknown_presets_are_refused():
    with pytest.raises(SbmError, match="unknown preset: 'large'"):
        config("large", 900)


def test_what_the_user_says_of_a_codec_changes_nothing_else():
    guesses = {"photo": guess("photo", DATA["photo"], {"codec": {"training": {"num_steps": 7}}})}
    guesses["tags"] = guess("tags", DATA["tags"], {"codec": "mlp", "latent_size": 5})
    made = presets.make_config(guesses, presets.Rows(900, 100), "small", False, 0)
    photo, tags = made.modalities
    assert photo["codec"]["name"] == "patch"
    assert photo["codec"]["training"] == {"num_steps": 7}
    assert tags["codec"]["beta"] == 0.1
    assert tags["latent_size"] == 5
    assert made.evaluation.metrics["f1 of tags"].to_dict() == {"name": "f1", "modality": "tags"}
    assert "mse" in made.evaluation.metrics


def test_videos_have_a_part_of_the_latent_for_each_moment():
    by_name = {modality.name: modality for modality in config("small", 900).modalities}
    clip = by_name["clip"]
    assert (clip.codec.name, clip.codec.network["frames"], clip.latent_size) == ("video", 2, 80)
    assert clip.codec.beta is None
