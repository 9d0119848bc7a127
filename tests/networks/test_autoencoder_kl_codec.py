"""The pretrained autoencoder as a codec: its latents as maps, and its weights from a file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, check_codec, make_codec
from sbm_jax.networks.codecs.autoencoder_kl import Layout
from sbm_jax.networks.pretrained.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from sbm_jax.systems.codec_training import AutoencoderConfig, CodecTraining
from sbm_jax.types import Dataset, Modality
from tests.networks.pretrained.files import tensors_of, write

SIZES = {"widths": (4, 4), "groups": 2, "depth": 1, "latent_channels": 2}
NETWORK = AutoencoderNetworkConfig()
NOTHING = Dataset(None, None, None, {}, {})


def modality(shape=(3, 8, 8, 3), latent_size=3 * 4 * 4 * 2, **network):
    codec = {"name": "autoencoder_kl", "network": {"sizes": SIZES | {"channels": shape[-1]}, **network}}
    return Modality("video", shape, latent_size, codec, bounds=(0.0, 1.0), num_tokens=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    module = AutoencoderKL(AutoencoderKLConfig(**SIZES))
    tensors = tensors_of(module, jnp.zeros((1, 8, 8, 3)))
    return write(tmp_path_factory.mktemp("kl") / "kl.safetensors", tensors)


def test_frames_become_the_channels_of_cells():
    layout = Layout(3, 4, 4, 2)
    maps = np.random.default_rng(0).normal(size=(6, 4, 4, 2)).astype(np.float32)
    z = layout.flat(jnp.asarray(maps))
    assert z.shape == (2, layout.size)
    cells = np.asarray(z).reshape(2, 4, 4, 3, 2)
    np.testing.assert_array_equal(cells[1, 2, 3, 1], maps[3 + 1, 2, 3])
    np.testing.assert_array_equal(layout.maps(z), maps)


def test_high_maps_become_square():
    layout = Layout(1, 8, 2, 1)
    maps = np.arange(16.0).reshape(1, 8, 2, 1)
    square = np.asarray(layout.flat(jnp.asarray(maps))).reshape(4, 4)
    np.testing.assert_array_equal(square, np.concatenate([maps[0, :4, :, 0], maps[0, 4:, :, 0]], axis=1))
    np.testing.assert_array_equal(layout.maps(jnp.asarray(square.reshape(1, 16))), maps)
    assert Layout(1, 6, 4, 1).bands == 1  # 24 cells form no square


def test_frames_are_encoded_and_decoded_as_the_network_does(weights):
    codec = make_codec(modality(weights=weights, frozen=True), NETWORK)
    check_codec(codec)
    params = jax.tree.map(jnp.asarray, codec.read())
    network = AutoencoderKL(AutoencoderKLConfig(**SIZES))
    own = {"params": params["encoder"]["network"] | params["decoder"]["network"]}
    x = jnp.asarray(np.random.default_rng(0).random((2, 3, 8, 8, 3), dtype=np.float32))
    mean, log_variance = jax.jit(codec.encode)(params, x)
    expected, _ = jax.jit(lambda x: network.apply(own, x, method="encode"))(2 * x.reshape(6, 8, 8, 3) - 1)
    np.testing.assert_allclose(codec.layout.maps(mean), expected, rtol=1e-4, atol=1e-5)
    assert log_variance.shape == (2, 96)
    decoded = jax.jit(codec.decode)(params, mean)
    expected = jax.jit(lambda z: network.apply(own, z, method="decode"))(expected)
    np.testing.assert_allclose(decoded, (expected.reshape(x.shape) + 1) / 2, rtol=1e-4, atol=1e-4)
    loss = codec.loss(params, jax.random.key(0), x, decoded)
    error = np.square(np.asarray(x - decoded)).reshape(2, -1).sum(axis=1)
    np.testing.assert_allclose(loss, error + 288 * np.log(np.pi), rtol=1e-3)  # half of ln(2 π / 2) each, 576 entries


def test_what_is_frozen_is_read_and_not_trained(weights):
    training = CodecTraining("kl", (modality(weights=weights, frozen=True),), AutoencoderConfig(), 0, False, False)
    (stage,) = training.stages(NOTHING)
    assert stage.training is None
    assert jax.tree.leaves(stage.init(jax.random.key(0), {}))[0].shape[0] == 1
    start, trained = dataclasses.replace(training, modalities=(modality(weights=weights),)).stages(NOTHING)
    assert (start.name, trained.requires) == ("kl_start", ("kl_start",))
    (fresh,) = dataclasses.replace(training, modalities=(modality(),)).stages(NOTHING)
    assert fresh.requires == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 9, 8, 3)}, r"shape is \(3, 9, 8, 3\); expected .* multiples of 2"),
        ({"bounds": ()}, r"bounds is \(\); expected \(0, 1\)"),
        ({"likelihood": "bernoulli"}, "likelihood is 'bernoulli'"),
        ({"latent_size": 32}, r"latent_size is 32; expected 96: 3 maps of 4x4x2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(SbmError, match=message):
        check_codec(make_codec(dataclasses.replace(modality(), **change), NETWORK))


def test_options_that_do_not_fit_are_refused(weights):
    with pytest.raises(SbmError, match="weights is ''; expected a file with the weights to freeze"):
        make_codec(modality(frozen=True), NETWORK)
    with pytest.raises(SbmError, match=r"values is \(1\.0, 1\.0\)"):
        make_codec(modality(values=(1.0, 1.0)), NETWORK)
    grey = modality((3, 8, 8, 1), weights=weights)
    with pytest.raises(SbmError, match=r"codec\.network\.weights: tensor '(encoder|decoder)\.conv_(in|out)\.\w+' has"):
        make_codec(grey, NETWORK).read()
