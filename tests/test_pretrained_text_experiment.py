"""An experiment whose texts are encoded by BERT and written by GPT-2, from weights files to a loaded model."""

import jax.numpy as jnp
import numpy as np
import pytest

import sbm_jax
from sbm_jax import experiment, experiment_config
from sbm_jax.config import plain
from sbm_jax.networks.pretrained.bert import Bert, BertConfig
from sbm_jax.networks.pretrained.gpt2 import GPT2 as Decoder
from sbm_jax.networks.pretrained.gpt2 import GPT2Config
from tests.networks.optimus_files import BERT, GPT2, caption
from tests.networks.pretrained.files import tensors_of, write

pytestmark = pytest.mark.slow

COLORS = ("red", "green", "blue")


def _training(num_steps):
    return {"num_steps": num_steps, "batch_size": 16, "optimizer": {"learning_rate": 1e-2}, "steps_per_dispatch": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path, ids = tmp_path_factory.mktemp("weights"), jnp.zeros((1, 2), jnp.int32)
    bert, gpt2 = (
        tensors_of(network, ids, seed=i)
        for i, network in enumerate((Bert(BertConfig(**BERT)), Decoder(GPT2Config(**GPT2))))
    )
    return write(path / "bert.safetensors", bert), write(path / "gpt2.safetensors", gpt2), bert, gpt2


@pytest.fixture(scope="module")
def run(tmp_path_factory, files):
    """Return the results and the work directory; the size of the vocabulary is left to the tokenizers."""
    path = tmp_path_factory.mktemp("text")
    for seed, split in enumerate(("train", "test")):
        label = np.random.default_rng(seed).integers(0, 3, 40)
        vector = np.eye(3)[label].astype(np.float32)
        np.savez(path / f"{split}.npz", vector=vector, caption=np.array([f"a {COLORS[k]} bird" for k in label]))
    own = plain(caption(path, encoder_weights=files[0], decoder_weights=files[1], frozen=("encoder", "decoder")))
    vector = {"name": "vector", "shape": (3,), "latent_size": 3, "codec": "mlp"}
    config = {
        "systems": ("sbm_vae_m", "mopoe"),
        "data": {"name": "arrays", "arrays": {"directory": str(path)}},
        "modalities": (vector, own | {"vocabulary_size": 0}),
        "autoencoder": {"training": _training(4), "network": {"widths": (8,)}},
        "score": {"training": _training(4), "network": {"width": 32, "depth": 1}, "probability_alone": 0.15},
        "methods": {"joint_posterior": {"training": _training(4), "latent_size": 4, "network": {"widths": (8,)}}},
        "classifier": None,
        "matcher": {"training": _training(4), "embedding_size": 4},
        "sampler": {"num_steps": 2},
        "evaluation": {"num_examples": 10, "num_unconditional": 10, "batch_size": 10, "num_repeats": 1},
    }
    agreement = {"source": "vector", "target": "caption", "candidates": 10}
    metrics = dict.fromkeys(("class_shares", "frechet", "cosine", "likelihood", "coherence", "classifier"))
    config["evaluation"]["metrics"] = metrics | {"reconstruction": {}, "sampling": {}, "agreement": agreement}
    return experiment.run(experiment_config.parse_config(config), path / "work"), path / "work"


def test_all_systems_are_judged(run):
    for name in ("sbm_vae_m", "mopoe"):
        metrics = run[0]["systems"][name]["metrics"]
        assert 0 <= metrics["reconstruction/token_accuracy/caption"]["value"] <= 1
        assert np.isfinite(metrics["agreement/cosine/given_vector/caption"]["value"])
        assert metrics["sampling/diverged"]["value"] == 0
    assert '<span class="text given">a ' in (run[1] / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("system", ["sbm_vae_m", "mopoe"])
def test_frozen_networks_are_as_their_files_have_them(run, files, system):
    model = sbm_jax.load(run[1], system)
    params = model.products["mopoe"]["codecs"] if system == "mopoe" else model.products["autoencoder_vae_caption"]
    own = params["caption"]
    table = own["encoder"]["bert"]["embeddings.word_embeddings"]["embedding"][0]
    np.testing.assert_array_equal(table, files[2]["embeddings.word_embeddings.weight"])
    weight = own["decoder"]["transformer.h.0"]["mlp.c_fc"]["weight"][0]
    np.testing.assert_array_equal(weight, files[3]["transformer.h.0.mlp.c_fc.weight"])


def test_texts_are_given_and_returned(run):
    model = sbm_jax.load(run[1], "sbm_vae_m")
    texts = model.generate({"vector": np.eye(3, dtype=np.float32)}).data["caption"]
    assert texts.shape == (3, 1)
    assert texts.dtype.kind == "U"
    again = model.generate({"caption": texts[:, 0]}, ["vector", "caption"]).data
    assert again["caption"].tolist() == texts.tolist()
    assert model.generate({"caption": ["a red bird"]}).data["vector"].shape == (1, 1, 3)
    rows = model.generate({}, ["caption"], batch_size=4, raw=False).data["caption"]
    assert rows.shape == (4, 1, 12)
    assert (rows[:, 0, 6] == 7).all()  # the encoder's half begins with its mark
    assert model.generate({"caption": rows[:, 0]}, ["vector"]).data["vector"].shape == (4, 1, 3)
