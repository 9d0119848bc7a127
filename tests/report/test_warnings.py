"""What is broken is warned of, and what is sound is not: by numbers that were measured."""

import io

import numpy as np
import pytest
from rich.console import Console

from sbm_jax.report import html
from sbm_jax.report.terminal import print_table
from sbm_jax.report.warnings import find_warnings


def one(value, n=1000):
    return {"value": value, "std": None, "n": n}


def codec(name="sound", used=32, size=32, kl=84.0, error=0.2, trained=0.18, shown=0.76, real=0.97):
    """Return the numbers of a codec: by default those of one that is sound."""
    found = {
        f"codecs/entries_in_use/{name}": one(float(used), size),
        f"codecs/kl/{name}": kl and one(kl),
        f"codecs/error_over_variance/{name}": one(error),
        f"codecs/train_error_over_variance/{name}": one(trained),
        f"classifier/reconstruction/{name}": one(shown),
        f"classifier/accuracy/{name}": one(real),
        **{f"coverage/class_{k}": one(0.1) for k in range(10)},
    }
    return {metric: value for metric, value in found.items() if value is not None}


IMAGE = codec("image", kl=71.0, shown=0.97, real=0.98)


def test_a_collapsed_codec_is_named_with_what_was_seen():
    # Log-mel spectrograms with a scale of 0.7: 5.9 nats, and the classifier reads 0.29 of the reconstructions.
    (text,) = find_warnings({**IMAGE, **codec(used=9, kl=5.9, error=0.45, trained=0.44, shown=0.29)}, {})
    assert text.startswith("The codec of 'sound' loses the data: 9 of 32 entries of its latent are in use (5.900 nats)")
    assert "correct on 29% of them, and on 97% of real data" in text
    assert "lower its codec.beta" in text


def test_a_sound_run_is_not_warned_of():
    assert find_warnings({**IMAGE, **codec()}, {}) == []
    assert find_warnings({**IMAGE, **codec(used=16, size=16, kl=215.0, shown=0.99)}, {}) == []
    few = codec(used=8, size=64, kl=20.0, error=0.1, trained=0.1, shown=0.95)  # enough for simple data
    assert find_warnings(few, {}) == []
    assert find_warnings({"coherence/given_rest": one(0.5)}, {}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"used": 0, "kl": 0.01, "shown": 0.97},
        {"kl": 0.05, "used": 1},
        {"error": 0.95, "trained": 0.95},
        {"used": 5, "error": 0.6, "trained": 0.6},
        {"used": 0, "kl": None},
    ],
)
def test_each_sign_of_collapse_is_enough(changes):
    (text,) = find_warnings(codec(**changes), {})
    assert "loses the data" in text
    assert ("rae_beta" in text) == ("kl" in changes and changes["kl"] is None)


def test_memorised_training_rows_are_told_from_small_differences():
    (text,) = find_warnings(codec(error=0.5, trained=0.1), {})
    assert "has memorised its training rows: the error of reconstructions is 0.500" in text
    assert find_warnings(codec(error=0.02, trained=0.005), {}) == []
    assert find_warnings(codec(error=0.26, trained=0.2), {}) == []


def test_a_weak_judge_is_named_and_blames_no_codec():
    (text,) = find_warnings({**IMAGE, **codec(shown=0.15, real=0.4)}, {})
    assert text.startswith("The classifier has these accuracies on real data: 0.40 of 'sound' (chance: 0.100)")


@pytest.mark.parametrize(("coherence", "n", "warned"), [(0.07, 100, 1), (0.15, 100, 1), (0.3, 100, 0), (0.07, 20, 0)])
def test_a_system_that_guesses_is_told(coherence, n, warned):
    found = find_warnings({**IMAGE, "coherence/given_rest": one(coherence, n)}, {})
    assert len(found) == warned
    assert all("train it for longer before you compare" in text for text in found)
    (cause,) = find_warnings({**codec(real=0.4), "coherence/given_rest": one(coherence, n)}, {})
    assert cause.startswith("The classifier")


def test_questions_are_told_apart():
    metrics = codec() | {f"coverage/colour/class_{k}": one(0.5) for k in range(2)}
    metrics |= {"classifier/colour/accuracy/sound": one(0.98), "classifier/colour/reconstruction/sound": one(0.55)}
    (text,) = find_warnings(metrics, {})
    assert "the classifier of 'colour' is correct on 55% of them, and on 98% of real data" in text
    assert "0.76" not in text


def curve(train, validation):
    steps = np.linspace(50, 3000, len(train)).astype(int)
    rows = [{"step": int(step), "split": "train", "loss": float(loss)} for step, loss in zip(steps, train, strict=True)]
    places = steps[np.linspace(len(steps) // 4, len(steps) - 1, len(validation)).astype(int)]
    held_out = [
        {"step": int(s), "split": "validation", "loss": loss} for s, loss in zip(places, validation, strict=True)
    ]
    return [*rows, *held_out, {"step": 3000, "split": "time", "seconds": 1.0}]


NOISY = 0.005 * np.random.default_rng(0).standard_normal(60)


@pytest.mark.parametrize(
    ("train", "validation", "found"),
    [
        (np.geomspace(1.0, 0.93, 60), [0.87, 0.85, 0.842], False),  # with less noise than training: as they are drawn
        (np.geomspace(1.0, 0.93, 60), [0.99, 0.97, 0.962], False),  # with more of it
        (np.geomspace(1.0, 0.3, 60), [0.8, 0.72, 0.95], True),  # rising
        (np.geomspace(1.0, 0.3, 60), [0.8, 0.79, 0.785], True),  # left behind
        (np.geomspace(1.0, 0.3, 60), [0.8, 0.6, 0.38], False),
        (np.linspace(8000, -6000, 60), [4000.0, 0.0, -5800.0], False),  # log likelihoods change their sign
        (np.full(60, 0.5), [0.5, 0.5, 0.6], False),  # where nothing is learned, nothing is memorised
        (np.geomspace(1.0, 0.3, 60), [0.9], False),  # only one validation
        (np.geomspace(1.0, 0.3, 60), [0.5, 0.9], False),  # two say little
        (np.linspace(10.0, 9.0, 60), [8.0, 8.2, 8.6], False),  # what is held out is easier, and stays so
    ],
)
def test_held_out_losses_that_rise_or_stay_behind(train, validation, found):
    texts = find_warnings({}, {"score_sbm_vae": curve(train + NOISY * abs(train[0] - train[-1]), validation)})
    assert [text.startswith("Stage 'score_sbm_vae' begins to memorise") for text in texts] == [True] * found


def test_what_a_diffusion_decoder_draws_blames_no_codec():
    unread = codec(shown=0.2)
    assert find_warnings({**IMAGE, **unread}, {})
    assert find_warnings({**IMAGE, **unread, "sampling/decoder_evaluations": one(5.0)}, {}) == []


def test_systems_with_the_same_codecs_are_warned_of_once():
    shared = "The codec of 'a' loses the data <b>."
    systems = {
        "sbm_vae": {"metrics": {}, "warnings": [shared]},
        "sbm_vae_m": {"metrics": {}, "warnings": [shared, "Stage [x] memorises."]},
        "mopoe": {"metrics": {}},
    }
    console = Console(file=io.StringIO(), width=200)
    print_table({"systems": systems}, console)
    printed = console.file.getvalue()
    assert f"Warning (sbm_vae, sbm_vae_m): {shared}" in printed
    assert "Warning (sbm_vae_m): Stage [x] memorises." in printed
    varied = {"study": "beta", "value": "9", "systems": {"sbm_vae": {"metrics": {}, "warnings": [shared]}}}
    page = html.render({"systems": systems, "variations": [{**varied, "changes": {}}]}, {}, {})
    assert "sbm_vae, sbm_vae_m, beta = 9: sbm_vae" in page
    assert "&lt;b&gt;" in page
    assert 'href="#warnings"' in page
    assert 'href="#warnings"' not in html.render({"systems": {"a": {"metrics": {}}}}, {}, {})
