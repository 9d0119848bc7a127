"""Pretrained networks that judge, small and with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import judges, pretrained_judges
from sbm_jax.errors import SbmError
from sbm_jax.evaluation import Subject, Tools, evaluate
from sbm_jax.evaluation.config import ClipConfig, EvaluationConfig, VggishConfig, check_metrics
from sbm_jax.networks.pretrained import clip as clip_network
from sbm_jax.networks.pretrained.vggish import Vggish
from sbm_jax.networks.pretrained.vggish import VggishConfig as Sizes
from sbm_jax.system import Generated
from sbm_jax.types import FormatConfig, Modality, Split
from tests.networks.pretrained.files import tensors_of, write, write_tokenizer

SIZES = {"widths": (2, 2, 3, 3), "hidden": 8, "embedding_size": 6}
SPECTROGRAM = {"rate": 8000, "length": 16_000, "num_mels": 20, "window": 512, "hop": 250, "iterations": 2}
SOUND = Modality("sound", (64, 20, 1), 4, bounds=(0.0, 1.0), format=FormatConfig("spectrogram", SPECTROGRAM))
IMAGE = Modality("image", (8, 8, 3), 4, bounds=(0.0, 1.0))
VIDEO = Modality("video", (3, 8, 8, 3), 4, bounds=(0.0, 1.0))


@pytest.fixture
def vggish(tmp_path):
    tensors = tensors_of(Vggish(Sizes(**SIZES)), jnp.zeros((1, 96, 64)))
    return VggishConfig(write(tmp_path / "vggish.safetensors", tensors), SIZES)


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, *SOUND.shape), dtype=np.float32)


# MARK: VGGish


def test_every_window_of_a_sound_has_features(vggish, tmp_path):
    space = pretrained_judges.vggish_space(vggish, (IMAGE, SOUND), tmp_path)
    assert set(space.extract) == {"sound"}
    rows = pictures(pretrained_judges.batch_size() + 1)
    features = space.extract["sound"](rows)
    assert features.shape == (len(rows), 2, 6)  # two seconds
    assert np.isfinite(features).all()
    assert features.std(axis=0).min() > 0
    np.testing.assert_allclose(space.extract["sound"](rows[-1:]), features[-1:], rtol=1e-4, atol=1e-5)
    assert space.measure("frechet") == "vggish/fad"
    distances = space.compare("sound", features.reshape(-1, 6), rows)
    assert distances["vggish/fad"].value == pytest.approx(0.0, abs=1e-6)
    assert distances["vggish/fad"].n == 2 * len(rows)
    quiet = space.extract["sound"](0.3 * rows).reshape(-1, 6)
    assert space.compare("sound", quiet, rows)["vggish/fad"].value > distances["vggish/fad"].value


def test_sounds_are_heard_at_16_khz():
    seconds = np.arange(4000) / 8000
    waves = np.sin(2 * np.pi * 440 * seconds)[None].astype(np.float32)
    heard = pretrained_judges.as_heard(waves, 8000)
    assert heard.shape == (1, 15_600)
    assert heard.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    np.testing.assert_allclose(heard[0, 200:7800], expected[200:7800], atol=1e-2)
    assert not heard[0, 8000:].any()  # shorter than one window
    assert pretrained_judges.as_heard(waves, 44_100).shape == (1, 15_600)


def test_without_weights_or_sounds_there_is_nothing_to_hear(vggish, tmp_path):
    assert pretrained_judges.vggish_space(VggishConfig(), (SOUND,), tmp_path) is None
    assert pretrained_judges.vggish_space(vggish, (IMAGE,), tmp_path) is None


def test_weights_are_checked_before_anything_is_trained(vggish):
    pretrained_judges.check(EvaluationConfig(vggish=vggish), (SOUND,))
    for wrong, message in (
        (VggishConfig(vggish.weights), "evaluation.vggish.weights: tensor .* has the shape"),
        (VggishConfig(vggish.weights + ".gz"), "evaluation.vggish.weights: no file"),
        (VggishConfig(vggish.weights, {"width": 3}), "unknown field of evaluation.vggish.network: 'width'"),
    ):
        with pytest.raises(SbmError, match=message):
            pretrained_judges.check(EvaluationConfig(vggish=wrong), (SOUND,))


def judges_of(directory, modalities, **pretrained):
    split = Split({})
    dataset = judges.Dataset(split, split, split, {}, {})
    return judges.Judges(dataset, modalities, None, {}, None, None, directory, **pretrained)


def test_the_space_is_chosen_by_name_and_kept_evaluations_know_the_file(vggish, tmp_path):
    space, missing = judges_of(tmp_path, (SOUND,), vggish=vggish).tools.space("vggish", ("sound",))
    assert space.name == "vggish"
    assert missing == {}
    space, missing = judges_of(tmp_path, (SOUND,)).tools.space("vggish", ("sound",))
    assert space is None
    assert "no weights (evaluation.vggish.weights)" in missing["vggish/fad"]
    before = pretrained_judges.contents(EvaluationConfig(vggish=vggish))
    other = tensors_of(Vggish(Sizes(**SIZES)), jnp.zeros((1, 96, 64)), seed=1)
    changed = write(tmp_path / "other.safetensors", other)
    assert pretrained_judges.contents(EvaluationConfig(vggish=VggishConfig(changed, SIZES))) != before


def test_inception_sees_every_frame_of_a_video(monkeypatch, tmp_path):
    monkeypatch.setattr(judges, "read_weights", lambda path: {})
    monkeypatch.setattr(judges, "inception_features", lambda params, images: images.mean(axis=(1, 2)))
    weights = tmp_path / "default_1.pt"
    weights.write_bytes(b"not read")
    space = judges.inception_space(weights, (VIDEO, IMAGE), tmp_path)
    videos = np.random.default_rng(0).integers(0, 256, (5, *VIDEO.shape), dtype=np.uint8)
    np.testing.assert_allclose(space.extract["video"](videos), videos.mean(axis=(2, 3)) / 255, rtol=1e-5)
    assert space.extract["image"](videos[:, 0]).shape == (5, 3)


# MARK: CLIP

WORDS = ("a", "blue", "red", "bird")
TEXT = FormatConfig("text", {"words": WORDS})
CAPTION = Modality("caption", (4,), 4, "tokens", "categorical", vocabulary_size=6, format=TEXT)
TOWER = {"width": 8, "depth": 1, "heads": 2}
CLIP = {"embedding_size": 6, "image": TOWER, "image_size": 8, "patch": 4, "text": TOWER}
CLIP |= {"vocabulary_size": 7, "most_tokens": 5}


@pytest.fixture
def clip(tmp_path):
    tower = clip_network.TowerConfig(**TOWER)
    module = clip_network.Clip(clip_network.ClipConfig(**CLIP | {"image": tower, "text": tower}))
    tensors = tensors_of(module, jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 3), jnp.int32))
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", [*WORDS], "<start>", "<end>")
    return ClipConfig(write(tmp_path / "clip.safetensors", tensors), tokenizer, CLIP)


def test_images_and_texts_become_unit_vectors(clip):
    embed = pretrained_judges.clip_fn(clip, (IMAGE, CAPTION))
    images = np.random.default_rng(0).random((pretrained_judges.batch_size() + 1, 8, 8, 3), dtype=np.float32)
    images[1] = np.nan
    ids = np.array([[2, 3, 5, 0], [2, 4, 5, 0], [-1, -1, -1, -1], [2, 4, 5, 0], [2, 2, 2, 2]], np.int32)
    found = embed({"image": images, "caption": ids})
    assert found["image"].shape == (len(images), 6)
    assert np.isnan(found["image"][1]).all()
    assert np.isnan(found["caption"][2]).all()
    for vectors in (np.delete(found["image"], 1, 0), np.delete(found["caption"], 2, 0)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found["caption"][1], found["caption"][3], rtol=1e-5)
    assert np.abs(found["caption"][0] - found["caption"][1]).max() > 1e-4
    np.testing.assert_allclose(embed({"image": images[-1:]})["image"], found["image"][-1:], rtol=1e-4, atol=1e-5)


def test_long_texts_are_cut_before_their_end(clip):
    sizes, _, tokenizer = pretrained_judges._read_clip(clip)
    np.testing.assert_array_equal(
        pretrained_judges.clip_ids(tokenizer, ["a red bird a blue bird", "bird", ""], sizes),
        [[5, 0, 2, 3, 6], [5, 3, 6, 6, 6], [5, 6, 6, 6, 6]],
    )


def test_what_is_no_pair_of_files_is_refused(clip, tmp_path):
    other = write_tokenizer(tmp_path / "other.json", [*WORDS, "one"], "<start>", "<end>")
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"model": {"type": "none"}}')
    cut = tmp_path / "cut.json"
    cut.write_text('{"model": ')
    for tokenizer, message in (
        (other, r"evaluation\.clip\.tokenizer ends a text with the id \[7\]; expected \[6\]"),
        (str(damaged), "damaged.json is not a tokenizer"),
        (str(cut), "cut.json cannot be read"),
        (str(tmp_path / "none.json"), "none.json cannot be read"),
    ):
        with pytest.raises(SbmError, match=message):
            pretrained_judges.check(EvaluationConfig(clip=ClipConfig(clip.weights, tokenizer, CLIP)), (IMAGE,))
    with pytest.raises(SbmError, match=r"evaluation\.clip\.tokenizer is ''"):
        ClipConfig(clip.weights)


@pytest.mark.parametrize(
    ("image", "text", "message"), [("caption", "image", "image is"), ("image", "sound", "text is")]
)
def test_pairs_that_can_not_be_compared_are_refused_before_training(image, text, message):
    def check(image, text):
        config = EvaluationConfig(metrics={"clip_score": {"image": image, "text": text}})
        pretrained_judges.check(config, (IMAGE, CAPTION, SOUND))

    with pytest.raises(SbmError, match=rf"clip_score\.{message}"):
        check(image, text)
    check("image", "caption")


def clip_scores(generate, embed, **rows):
    config = EvaluationConfig(6, 6, 4, num_repeats=2, metrics={"clip_score": {"image": "a", "text": "b"}})
    found = evaluate(Subject(generate), Split(rows), ("a", "b"), jax.random.key(0), config, Tools(clip=embed))
    return {name: estimate.value for name, estimate in found.metrics.items()}, found.not_available


def test_scores_of_three_directions():
    """Vectors are the data themselves; generated ones of b are orthogonal to, and of a opposite to, what is given."""
    right, up = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)

    def generate(key, data, observed, num_samples):
        has_a, has_b = (jnp.asarray(observed)[:, i, None] for i in range(2))
        a = jnp.where(has_a, data["a"], jnp.where(has_b, -data["b"], right[None]))
        b = jnp.where(has_b, data["b"], jnp.where(has_a, data["a"][:, ::-1], (0.6 * right + 0.8 * up)[None]))
        return Generated({"a": a[:, None], "b": b[:, None]}, None, {})

    data = {name: np.tile(right, (6, 1)) for name in "ab"}
    found, missing = clip_scores(generate, lambda data: {name: np.asarray(x) for name, x in data.items()}, **data)
    expected = {
        "clip_score/given_a/b": 0.0,
        "clip_score/given_b/a": 0.0,  # -100, cut
        "clip_score/unconditional/a/b": 60.0,
        "clip_score/real/a/b": 100.0,
    }
    assert found == pytest.approx(expected)
    assert not missing
    found, missing = clip_scores(generate, None, **data)
    assert not found
    assert missing.keys() == {"clip_score/given_a/b", "clip_score/given_b/a", "clip_score/unconditional/a/b"}


def test_the_names_of_a_pair_are_checked():
    for options, message in (
        ({"image": "c", "text": "b"}, r"unknown modality \(config.evaluation.metrics.clip_score.image\)"),
        ({"image": "a", "text": "a"}, "name two modalities"),
    ):
        with pytest.raises(SbmError, match=message):
            check_metrics(EvaluationConfig(metrics={"clip_score": options}), ("a", "b"))
