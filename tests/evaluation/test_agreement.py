"""The agreement of what is generated with what is given, in a space of vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import experiment, experiment_config
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, check_metrics, evaluate
from sbm_jax.evaluation.metrics.agreement import NO_MATCHER
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.codecs.base import Codec
from sbm_jax.system import Generated
from sbm_jax.systems.matcher import Matcher, MatcherConfig
from sbm_jax.training.stages import run_stages
from sbm_jax.types import CodecConfig, Dataset, Modality, Split
from tests.robustness.kill import write_data
from tests.robustness.tiny import get_config

NAMES = ("photo", "sound", "tags")
RNG = np.random.default_rng(0)
PLACES = RNG.normal(size=(60, 4)).astype(np.float32)
DATA = {"photo": PLACES, "sound": RNG.random((60, 3), dtype=np.float32), "tags": PLACES}


def _embed(data):
    """Return the direction of photos and of tags, which are the same arrays."""
    return {name: x[:, :4] / np.linalg.norm(x[:, :4], axis=1, keepdims=True) for name, x in data.items()}


def _generate(tags):
    """Return a system that draws photos and tags by a function of the given photo."""

    def generate(key, data, observed, num_samples):
        del num_samples
        found = {**data, "photo": jax.random.normal(key, data["photo"].shape)}
        found["tags"] = tags(jnp.where(jnp.asarray(observed)[:, :1], data["photo"], found["photo"]))
        samples = {
            name: jnp.where(jnp.asarray(observed)[:, m, None], data[name], found[name])[:, None]
            for m, name in enumerate(NAMES)
        }
        return Generated(samples, None, {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)})

    return generate


def _measure(tags, embed=_embed, data=DATA, present=None, **options):
    metrics = {"agreement": {"source": "photo", "target": "tags", "candidates": 20, **options}}
    config = EvaluationConfig(60, 60, 16, num_repeats=2, metrics=metrics)
    tools = Tools(embed=embed)
    found, missing, _ = evaluate(
        Subject(_generate(tags)), Split(data, present=present), NAMES, jax.random.key(0), config, tools
    )
    return {name: found[name] for name in found if name.startswith("agreement/")}, missing


def test_a_copy_agrees_and_finds_its_source():
    found, _ = _measure(lambda photo: 3.0 * photo)
    assert found["agreement/cosine/given_photo/tags"].value == pytest.approx(1.0)
    assert found["agreement/rank/given_photo/tags"].value == 1.0
    assert found["agreement/cosine/given_photo/tags"].n == 120
    assert found["agreement/cosine/real/photo/tags"].value == pytest.approx(1.0)
    assert found["agreement/rank/real/photo/tags"] == (1.0, None, 20, "")


def test_the_opposite_comes_last():
    found, _ = _measure(lambda photo: -photo)
    assert found["agreement/cosine/given_photo/tags"].value == pytest.approx(-1.0)
    assert found["agreement/rank/given_photo/tags"].value == 20.0


def test_what_does_not_depend_on_the_source_has_the_rank_of_chance():
    found, _ = _measure(lambda photo: jnp.ones_like(photo) + 0.0 * photo)
    assert found["agreement/rank/given_photo/tags"].value == pytest.approx(10.5, abs=2.5)
    assert abs(found["agreement/cosine/given_photo/tags"].value) < 0.3


def test_a_matcher_that_tells_nothing_apart_has_the_rank_of_chance():
    found, _ = _measure(
        lambda photo: photo, embed=lambda data: {name: np.ones((len(x), 1)) for name, x in data.items()}
    )
    assert found["agreement/rank/given_photo/tags"].value == pytest.approx(10.5)
    assert found["agreement/rank/real/photo/tags"].value == pytest.approx(10.5)


def test_from_nothing_both_are_generated():
    found, missing = _measure(lambda photo: photo, from_nothing=True)
    assert found["agreement/cosine/unconditional/photo/tags"].value == pytest.approx(1.0, abs=1e-5)
    assert not [name for name in (*found, *missing) if name.startswith("agreement/rank/unconditional")]


def test_rows_without_a_modality_and_samples_that_diverged_are_left_out():
    present = {name: np.ones(60, bool) for name in NAMES}
    present["tags"][::2] = False
    data = {**DATA, "tags": np.where(present["tags"][:, None], DATA["tags"], 0.0)}
    with np.errstate(invalid="ignore"):  # rows without tags have no direction
        found, _ = _measure(
            lambda photo: jnp.where(photo[:, :1] > 0.5, jnp.nan, photo), data=data, present=present, candidates=60
        )
    there = present["tags"] & (DATA["photo"][:, 0] <= 0.5)
    assert found["agreement/cosine/given_photo/tags"].n == 2 * there.sum()
    assert found["agreement/rank/given_photo/tags"].value == 1.0
    assert found["agreement/rank/real/photo/tags"].n == 30


def test_without_a_matcher_it_says_so():
    found, missing = _measure(lambda photo: photo, embed=None)
    assert not found
    assert missing["agreement/cosine/given_photo/tags"] == NO_MATCHER


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "foto", "target": "tags"}, "Did you mean 'photo'"),
        ({"source": "photo"}, "agreement.target"),
        ({"source": "photo", "target": "photo"}, "source and target are both 'photo'"),
        ({"source": "photo", "target": "tags", "candidates": 1}, "2 or more"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(SbmError, match=message):
        check_metrics(EvaluationConfig(40, 40, metrics={"agreement": options}), NAMES, NAMES)


# MARK: The matcher


def _modality(name, size):
    return Modality(name, (size,), 4, CodecConfig("mlp", {"widths": (32,)}))


MODALITIES = (_modality("photo", 4), _modality("tags", 6))


def test_a_trained_matcher_finds_the_counterparts_of_new_rows(tmp_path):
    rng = np.random.default_rng(1)
    photos = rng.normal(size=(600, 4)).astype(np.float32)
    tags = (photos @ rng.normal(size=(4, 6))).astype(np.float32)
    splits = [Split({"photo": photos[rows], "tags": tags[rows]}) for rows in (slice(0, 500), slice(500, 550))]
    dataset = Dataset(*splits, splits[1], {}, {})
    config = MatcherConfig(training={"num_steps": 300, "batch_size": 64}, embedding_size=8, dropout=0.0)
    matcher = Matcher(MODALITIES, config)
    params = run_stages([matcher.stage(dataset)], tmp_path, seed=0)["matcher"]
    vectors = matcher.embed_fn(params)({"photo": photos[550:], "tags": tags[550:]})
    for array in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1.0, rtol=1e-5)
    found = np.argmax(vectors["photo"] @ vectors["tags"].T, axis=1)
    assert np.mean(found == np.arange(50)) > 0.8
    alone = matcher.embed_fn(params)({"tags": tags[550:]})
    assert set(alone) == {"tags"}
    np.testing.assert_allclose(alone["tags"], vectors["tags"], atol=1e-5)


def test_words_have_vectors_too():
    words = Modality(
        "words", (5,), 4, CodecConfig("tokens", {"width": 8, "heads": 2}), "categorical", vocabulary_size=6
    )
    matcher = Matcher((MODALITIES[0], words), MatcherConfig(embedding_size=8))
    ids = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]], np.int32)
    vectors = matcher.embed_fn(matcher.encoders.init(jax.random.key(0)))({"words": ids})["words"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert not np.allclose(*vectors)


class _NoEncoder(Codec):
    Options = AutoencoderNetworkConfig

    def __init__(self, modality, options):
        """Take what codecs are made of."""


def test_what_can_not_be_matched_is_refused():
    other = Modality("other", (4,), 4, f"{__name__}:_NoEncoder")
    with pytest.raises(SbmError, match=r"a matcher .* needs the encoder of every codec as a module"):
        Matcher((MODALITIES[0], other), MatcherConfig())
    with pytest.raises(SbmError, match="two modalities or more"):
        Matcher(MODALITIES[:1], MatcherConfig())
    with pytest.raises(SbmError, match="2 or more: the other rows"):
        MatcherConfig(training={"batch_size": 1})


@pytest.mark.slow
def test_an_experiment_trains_a_matcher_and_judges_by_it(tmp_path):
    write_data(tmp_path / "data")
    values = get_config(str(tmp_path / "data"))
    values.systems = ("sbm_vae",)
    values.matcher = {"training": values.methods.sbm_t.training.to_dict(), "network": {"widths": (16,)}}
    values.evaluation.metrics = {"agreement": {"source": "a", "target": "b", "candidates": 10}}
    results = experiment.run(experiment_config.parse_config(values.to_dict()), tmp_path / "run")
    metrics = results["systems"]["sbm_vae"]["metrics"]
    assert -1 <= metrics["agreement/cosine/given_a/b"]["value"] <= 1
    assert 1 <= metrics["agreement/rank/given_a/b"]["value"] <= 10
    assert metrics["agreement/rank/real/a/b"]["n"] == 10
