"""An experiment of vectors and texts, from training to a loaded model that takes and returns strings."""

import jax
import numpy as np
import pytest

import sbm_jax
from sbm_jax import experiment, experiment_config
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.codec_training import AutoencoderConfig, CodecTraining
from sbm_jax.types import CodecConfig, Modality, TrainingConfig

pytestmark = pytest.mark.slow

COLORS = ("red", "green", "blue")


def _arrays(num_rows, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, num_rows)
    texts = [
        f"A {COLORS[k]} bird{'.' if dot else ''}" for k, dot in zip(label, rng.random(num_rows) < 0.5, strict=True)
    ]
    vector = np.eye(3)[label] + 0.1 * rng.normal(size=(num_rows, 3))
    return {"vector": vector.astype(np.float32), "caption": np.array(texts), "label": label.astype(np.int32)}


def _training(num_steps):
    return {"num_steps": num_steps, "batch_size": 32, "optimizer": {"learning_rate": 1e-2}, "steps_per_dispatch": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the results and the work directory; the words of the captions are left to the data."""
    path = tmp_path_factory.mktemp("text")
    for seed, split in enumerate(("train", "test")):
        np.savez(path / f"{split}.npz", **_arrays(120, seed))
    network = {"width": 16, "depth": 1, "heads": 2}
    caption = {"name": "caption", "shape": (6,), "latent_size": 8, "likelihood": "categorical", "format": "text"}
    caption |= {"codec": {"name": "tokens", "network": network, "beta": 0.05}}
    vector = {"name": "vector", "shape": (3,), "latent_size": 3, "codec": "mlp"}
    score = {"training": _training(200), "network": {"name": "transformer", "width": 32, "depth": 1}}
    score |= {"probability_alone": 0.15}
    config = {
        "systems": ("sbm_vae_m", "mopoe"),
        "data": {"name": "arrays", "arrays": {"directory": str(path)}},
        "modalities": (vector, caption),
        "autoencoder": {"training": _training(200), "network": {"widths": (16,)}, "beta": 0.05},
        "score": score,
        "methods": {"joint_posterior": {"training": _training(40), "latent_size": 6, "network": {"widths": (16,)}}},
        "classifier": {"training": _training(60), "widths": (16,), "hidden": 16},
        "sampler": {"num_steps": 8},
        "evaluation": {"num_examples": 60, "num_unconditional": 60, "batch_size": 60, "num_repeats": 1},
    }
    metrics = {name: {} for name in ("diversity", "reconstruction", "classifier", "sampling", "mse")}
    metrics |= dict.fromkeys(("class_shares", "frechet", "cosine", "likelihood"))
    config["evaluation"]["metrics"] = metrics | {"coherence": {"sets": ("given_rest",)}}
    return experiment.run(experiment_config.parse_config(config), path / "work"), path / "work"


def test_systems_learn_what_texts_say(run):
    results, _ = run
    metrics = {metric: estimate["value"] for metric, estimate in results["systems"]["sbm_vae_m"]["metrics"].items()}
    assert metrics["reconstruction/token_accuracy/caption"] > 0.95
    assert metrics["coherence/given_rest"] > 0.7
    assert 0 < metrics["diversity/given_1"] < 10
    assert metrics["sampling/diverged"] == 0
    assert metrics["classifier/accuracy/caption"] > 0.95
    assert "reconstruction/mse/vector" in metrics
    assert "reconstruction/mse/caption" not in metrics
    assert "mse/given_rest/vector" in metrics
    reasons = results["systems"]["sbm_vae_m"]["not_available"]
    assert reasons["mse/given_rest/caption"] == "ids have no squared error"
    assert "coherence/given_rest" in results["systems"]["mopoe"]["metrics"]


def test_the_report_shows_texts(run):
    page = (run[1] / "report" / "index.html").read_text(encoding="utf-8")
    assert '<span class="text given">a ' in page
    assert '<span class="text">a ' in page


def test_texts_are_given_and_returned(run, caplog):
    model = sbm_jax.load(run[1], "sbm_vae_m")
    assert not caplog.records  # nothing is wrong
    given = {"vector": np.eye(3, dtype=np.float32)[[0, 1, 2] * 4]}
    texts = model.generate(given).data["caption"]
    assert texts.shape == (12, 1)
    assert texts.dtype.kind == "U"
    assert np.mean([color in text for color, text in zip(COLORS * 4, texts[:, 0], strict=True)]) > 0.7
    again = model.generate({"caption": texts[:, 0]}, ["vector", "caption"]).data
    assert again["caption"].tolist() == texts.tolist()
    assert np.mean(again["vector"][:, 0].argmax(axis=1) == [0, 1, 2] * 4) > 0.7
    vectors = model.generate({"caption": np.array(["a red bird", "A blue bird."] * 6)}).data["vector"]
    assert np.mean(vectors[:, 0].argmax(axis=1) == [0, 2] * 6) > 0.7
    ids = model.generate({}, ["caption"], batch_size=12, raw=False).data["caption"]
    assert ids.dtype == np.int32
    with pytest.raises(SbmError, match="a text of 7 words in row 0"):
        model.generate({"caption": np.array(["a a a a a a a"])})


def test_a_joint_posterior_gives_texts(run):
    texts = sbm_jax.load(run[1], "mopoe").generate({"vector": np.eye(3, dtype=np.float32)}).data["caption"]
    assert texts.shape == (3, 1)
    assert texts.dtype.kind == "U"


def test_aligned_codecs_of_ids_and_numbers_are_trained_together():
    network = CodecConfig("tokens", {"width": 8, "depth": 1, "heads": 2})
    caption = Modality("caption", (6,), 8, network, "categorical", vocabulary_size=8)
    config = AutoencoderConfig(TrainingConfig(1, 4), AutoencoderNetworkConfig((8,)), alignment=1.0, aligned_size=4)
    own = CodecTraining("aligned", (Modality("vector", (3,), 4, "mlp"), caption), config, 0, False, False)
    own.check()
    data = {"vector": np.ones((4, 3), np.float32), "caption": np.array([[k + 1, 2, 0, 0, 0, 0] for k in range(4)])}
    data["caption"] = data["caption"].astype(np.int32)
    params = jax.jit(own.codecs.init)(jax.random.key(0))
    gradient, metrics = jax.jit(jax.grad(own.loss, has_aux=True))(params, {}, jax.random.key(1), {"data": data})
    assert np.isfinite(metrics["recognition"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
