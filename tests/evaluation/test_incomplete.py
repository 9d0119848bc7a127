"""Held-out rows that lack modalities: what they lack is never given, never compared with, and changes no number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, evaluate
from sbm_jax.evaluation.metrics import DEFAULT
from sbm_jax.evaluation.metrics.base import ReaderFns
from sbm_jax.system import Generated
from sbm_jax.types import Split

NAMES, COUNT, COMPLETE = ("picture", "mask", "tags"), 40, 6
SHAPES = {"picture": (4, 4, 3), "mask": (4, 4, 1), "tags": (5,)}
METRICS = {name: {} for name in DEFAULT} | {
    "coherence": {"sets": ("given_rest", "random", "fixed_order", "from_one", "unconditional")},
    "likelihood": {"num_examples": 20, "num_samples": 2, "samples_per_call": 1, "batch_size": 5},
    "f1": {"modality": "mask", "given": ("picture",)},
    "iou": {"modality": "mask"},
    "per_attribute": {"modality": "tags", "given": ("picture",)},
    "mse": {},
    "readings": {"modality": "picture", "target": "tags", "given": ("mask",)},
    "robustness": {"modality": "tags", "given": ("picture",), "strengths": (0.5,)},
    "sharpness": {"sets": ("given_rest", "unconditional")},
}


def rows(what_is_lacking):
    """Six rows of 40 have all; others have a picture and, in turn, tags, a mask or nothing more."""
    rng = np.random.default_rng(0)
    data = {name: (rng.random((COUNT, *shape)) > 0.4).astype(np.float32) for name, shape in SHAPES.items()}
    numbers = rng.permutation(COUNT)
    turn = numbers % 3
    complete = numbers < COMPLETE
    present = {"picture": np.ones(COUNT, bool), "mask": complete | (turn == 1), "tags": complete | (turn == 0)}
    for name, there in present.items():
        data[name][~there] = what_is_lacking
    return Split(data, {"label": rng.integers(0, 2, COUNT)}, present)


def subject(seen):
    """A subject all of whose answers depend on all that it is shown; `seen` gets (observed, tags) of each call."""

    def generate(key, data, observed, num_samples):
        seen.append((np.asarray(observed), {name: np.asarray(x) for name, x in data.items()}))
        given = sum(x.reshape(len(x), -1).mean(axis=1) * observed[:, m] for m, x in enumerate(data.values()))
        samples = {}
        for m, name in enumerate(NAMES):
            wide = (-1, *[1] * len(SHAPES[name]))
            drawn = jax.random.uniform(jax.random.fold_in(key, m), data[name].shape) * given.reshape(wide)
            samples[name] = jnp.where(observed[:, m].reshape(wide), data[name], drawn)[:, None]
        latents = {name: x.reshape(len(x), 1, -1) for name, x in samples.items()}
        return Generated(samples, latents, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})

    def reconstruct(data):
        joint = sum(x.reshape(len(x), -1).mean(axis=1) for x in data.values())
        return {name: x * joint.reshape(-1, *[1] * (x.ndim - 1)) for name, x in data.items()}

    def flat(data):
        return {name: x.reshape(len(x), -1) for name, x in data.items()}

    return Subject(
        generate=generate,
        reconstruct=reconstruct,
        encode=flat,
        log_weights=lambda _, data, num: jnp.tile(-sum(x.sum(axis=1) for x in flat(data).values())[:, None], num),
        posteriors=lambda data: {name: (x, jnp.zeros_like(x)) for name, x in flat(data).items()},
        codec_reconstructions=lambda data: {name: 0.5 * x for name, x in data.items()},
    )


def classify(data):
    return {name: np.asarray(x).reshape(len(x), -1).mean(axis=1) > 0.5 for name, x in data.items()}


def read(pictures):
    return np.asarray(pictures).reshape(len(pictures), -1)[:, :5]


def attack(pictures, tags, strengths):
    return pictures + strengths.reshape(-1, 1, 1, 1) * tags.mean(axis=1).reshape(-1, 1, 1, 1)


READERS = {("picture", "tags"): ReaderFns(read, attack)}
TOOLS = Tools({"label": classify}, {"label": 2}, readers=READERS, pictures=("picture", "mask"))


def evaluated(split, **changes):
    seen = []
    amounts = {"num_examples": 30, "num_unconditional": 12, "batch_size": 8, "num_repeats": 2}
    config = EvaluationConfig(metrics=METRICS, **amounts | changes)
    return evaluate(subject(seen), split, NAMES, jax.random.key(3), config, TOOLS), seen


def test_what_rows_lack_changes_no_number():
    one, _ = evaluated(rows(what_is_lacking=0.0))
    other, _ = evaluated(rows(what_is_lacking=1.0))
    metrics, others = (
        {name: value for name, value in found.metrics.items() if "samples_per_second" not in name}
        for found in (one, other)
    )
    assert metrics == others
    assert one.not_available == other.not_available
    for name, values in one.figures.items():
        np.testing.assert_array_equal(values, other.figures[name])
    parts = ("coherence/given_rest/mask", "likelihood/elbo", "f1/given_picture/mask", "iou/given_rest/mask")
    for part in (*parts, "readings/f1/given_mask/picture/tags", "robustness/given_picture/tags/f1/attack_0.5"):
        assert any(name.startswith(part) for name in metrics), part


def test_what_rows_lack_is_never_given():
    """What is lacking has a value that no other data have."""
    _, seen = evaluated(rows(what_is_lacking=0.5))
    assert len(seen) > 10
    seen_lacking = seen_given = False
    for observed, data in seen:
        for m, name in enumerate(NAMES):
            sampled = ~observed.all(axis=1)  # the others are padding, in which nothing is sampled
            lacking = (data[name].reshape(len(observed), -1) == 0.5).all(axis=1)
            assert not (observed[:, m] & lacking & sampled).any()
            seen_lacking |= (lacking & sampled).any()
            seen_given |= (observed[:, m] & sampled).any()
    assert seen_lacking
    assert seen_given


def test_counts_are_of_the_rows_that_can_be_judged():
    """Complete rows come first, so that what few have is judged as well as can be."""
    split = rows(0.0)
    found, _ = evaluated(split)
    assert found.metrics["iou/given_rest/mask"].n == 2 * COMPLETE
    assert found.metrics["f1/given_picture/mask"].n > 2 * COMPLETE
    assert found.metrics["reconstruction/mse/picture"].n == COMPLETE


def test_some_row_must_be_complete():
    split = rows(0.0)
    nobody = dataclasses.replace(split, present=split.present | {"tags": ~split.present["mask"]})
    with pytest.raises(SbmError, match="no row of the split has all of picture, mask, tags"):
        evaluated(nobody)
