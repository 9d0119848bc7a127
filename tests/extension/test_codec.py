"""A codec from outside of the package, named in a config."""

import jax
import numpy as np
import pytest

from sbm_jax.config import build
from sbm_jax.errors import SbmError
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training.stages import run_stages
from sbm_jax.types import Dataset, Modality, Split

CODEC = {"name": "tests.extension.codec:Linear", "network": {"noise": 0.05}, "training": {"num_steps": 300}}


def _space(codec=CODEC):
    values = [
        {"name": "ours", "shape": (4,), "latent_size": 2, "codec": "mlp"},
        {"name": "theirs", "shape": (3, 2), "latent_size": 2, "codec": codec, "bounds": (-1.0, 1.0)},
    ]
    training = {"num_steps": 2, "batch_size": 32, "optimizer": {"learning_rate": 0.05}}
    config = build(AutoencoderConfig, {"training": training, "network": {"widths": (8,)}})
    return LatentSpace(tuple(build(Modality, value) for value in values), config)


def _split(num_rows, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_rows, 2))
    x = np.clip(z @ np.array([[0.2, 0.1, 0.0, -0.2, 0.3, 0.1], [0.0, 0.2, -0.3, 0.1, 0.1, 0.2]]), -1, 1)
    data = {"ours": rng.normal(size=(num_rows, 4)), "theirs": x.reshape(-1, 3, 2)}
    return Split({name: array.astype(np.float32) for name, array in data.items()}, None)


def _decoded(space, products, seed, z):
    key = jax.random.key(seed)
    return space.codecs.generate(space.params(products), key, space.restore(products, z))["theirs"]


DATASET = Dataset(_split(64, 0), _split(16, 1), _split(16, 2), None, {})


def test_it_is_trained_and_used_like_any_other(tmp_path):
    space = _space()
    products = run_stages(space.stages(DATASET), tmp_path, seed=0)
    assert list(products) == ["autoencoder_vae_ours", "autoencoder_vae_theirs", "latents_vae"]
    data = DATASET.test.data
    z = space.encode(products, data)
    decoded = _decoded(space, products, 0, z)
    assert decoded.shape == (16, 3, 2)
    assert np.abs(decoded).max() <= 1
    assert np.sqrt(np.mean((decoded - data["theirs"]) ** 2)) < 0.6 * data["theirs"].std()
    assert not np.array_equal(decoded, _decoded(space, products, 1, z))
    np.testing.assert_array_equal(
        space.reconstruct(products, data)["theirs"], space.reconstruct(products, data)["theirs"]
    )


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({**CODEC, "network": {"noise": 0.0}}, "codec.network.noise is 0.0; expected a positive number"),
        ({**CODEC, "network": {"nois": 0.1}}, "codec.network: 'nois'. Did you mean 'noise'"),
        ({**CODEC, "name": "tests.extension.codec:Linea"}, "codec of modality 'theirs'.*has no attribute 'Linea'"),
        ({**CODEC, "training": {"num_step": 3}}, "codec.training: 'num_step'. Did you mean 'num_steps'"),
    ],
)
def test_what_is_wrong_with_it_is_told(codec, message):
    with pytest.raises(SbmError, match=message):
        _space(codec).check()
