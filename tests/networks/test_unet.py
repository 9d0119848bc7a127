"""The UNet has the paper's architecture, and keeps the interface of the score networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks import unet
from sbm_jax.networks.unet import Attention, UNet

BATCH, MODALITIES, SIZE = 3, 4, 16
SMALL = {"dim": 8, "multipliers": (1, 2), "num_heads": 2, "head_dim": 4}
TINY = {**SMALL, "multipliers": (1,)}


def random_params(network, *inputs):
    """Return parameters of the right shapes without compiling the network's own initialisation."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda leaf: generator.uniform(-0.3, 0.3, leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def inputs():
    z = np.random.default_rng(1).normal(size=(BATCH, MODALITIES, SIZE)).astype(np.float32)
    observed = jnp.array([[True, False, False, True], [False] * 4, [False, True, False, False]])
    return jnp.asarray(z), jnp.where(observed, jnp.float32(0.0), jnp.float32(0.3)), observed


@pytest.fixture(scope="module")
def network():
    return UNet(**SMALL)


@pytest.fixture(scope="module")
def params(network, inputs):
    return random_params(network, *inputs)


@pytest.fixture(scope="module")
def predict(network):
    return jax.jit(network.apply)


@pytest.mark.parametrize(
    ("dim", "multipliers", "num_modalities", "size", "millions"),
    [
        (128, (1, 2, 2, 2), 10, 64, 42.67),
        (64, (1, 2, 2, 2), 5, 64, 10.96),
        (256, (1, 2, 2, 2, 2), 3, 256, 222.8),
    ],
)
def test_parameter_counts_are_those_of_the_authors(dim, multipliers, num_modalities, size, millions):
    network = UNet(dim, multipliers, mask_channels=False)
    times = jnp.zeros((1, num_modalities))
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jnp.zeros((1, num_modalities, size)), times, times.astype(bool)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == pytest.approx(millions * 1e6, rel=1e-3)


def test_output_has_the_shape_of_the_latents_and_depends_on_every_modality(predict, params, inputs):
    z, t, observed = inputs
    y = predict(params, z, t, observed)
    assert y.shape == z.shape
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()
    for modality in range(MODALITIES):
        assert not np.allclose(predict(params, z.at[:, modality].add(1.0), t, observed), y, atol=1e-4)


def test_rows_do_not_depend_on_their_companions(predict, params, inputs):
    z, t, observed = inputs
    expected = predict(params, z, t, observed)
    other = predict(params, z.at[1:].set(5.0), t.at[1:].set(0.9), ~observed.at[0].set(~observed[0]))
    np.testing.assert_allclose(other[0], expected[0], rtol=1e-5, atol=1e-6)


def test_modes_agree(predict, params, inputs):
    expected = jax.jit(UNet(**SMALL, conv_mode="conv").apply)(params, *inputs)
    np.testing.assert_allclose(predict(params, *inputs), expected, atol=1e-5 * np.abs(expected).max())


def test_latents_are_laid_out_row_major_with_modalities_as_channels(network, params, inputs):
    @jax.jit
    def first_maps(params, *inputs):
        maps = []

        def record(call, args, kwargs, context):
            if isinstance(context.module, unet.Conv):
                maps.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            network.apply(params, *inputs)
        return maps[0]

    maps = first_maps(params, *inputs)
    z, _, observed = inputs
    np.testing.assert_array_equal(maps[..., :MODALITIES], np.moveaxis(z.reshape(BATCH, MODALITIES, 4, 4), 1, 3))
    np.testing.assert_array_equal(maps[:, 2, 3, MODALITIES:], observed)


def test_mask_channels_tell_observed_from_unobserved(predict, params, inputs):
    z, t, observed = inputs
    assert not np.allclose(predict(params, z, t, observed), predict(params, z, t, ~observed), atol=1e-4)
    plain = UNet(**TINY, mask_channels=False)
    plain_params = random_params(plain, *inputs)
    apply = jax.jit(plain.apply)
    np.testing.assert_array_equal(apply(plain_params, z, t, observed), apply(plain_params, z, t, ~observed))


def test_content_and_time_of_absent_modalities_are_not_looked_at(predict, params, inputs):
    z, t, observed = inputs
    present = jnp.ones_like(observed).at[:, 2].set(False)
    expected = predict(params, z, t, observed, present)
    actual = predict(params, z.at[:, 2].set(jnp.nan), t.at[:, 2].set(1.0), observed, present)
    np.testing.assert_array_equal(actual, expected)
    everything = predict(params, z, t, observed, jnp.ones_like(present))
    np.testing.assert_allclose(everything, predict(params, z, t, observed), rtol=0, atol=2e-6)  # another program
    assert not np.allclose(everything, expected, atol=1e-4)


def test_the_latest_time_of_a_row_is_its_time(predict, params, inputs):
    z, t, observed = inputs
    latest = jnp.broadcast_to(t.max(axis=1, keepdims=True), t.shape)
    y = predict(params, z, t, observed)
    np.testing.assert_array_equal(predict(params, z, latest, observed), y)
    assert not np.allclose(predict(params, z, 2.0 * t, observed), y, atol=1e-4)


def test_embedding_conditions_the_prediction(inputs):
    network = UNet(**TINY)
    embedding = jnp.linspace(-1.0, 1.0, 6 * BATCH).reshape(BATCH, 6)
    params = random_params(network, *inputs, None, embedding)
    predict = jax.jit(network.apply)
    y = predict(params, *inputs, None, embedding)
    assert not np.allclose(predict(params, *inputs, None, -embedding), y, atol=1e-4)


def test_bfloat16_activations_give_a_float32_result_near_the_exact_one(inputs):
    networks = [UNet(**TINY, dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32)]
    params = random_params(networks[0], *inputs)
    actual, expected = (jax.jit(network.apply)(params, *inputs) for network in networks)
    assert actual.dtype == jnp.float32
    error = jnp.linalg.norm(actual - expected) / jnp.linalg.norm(expected)
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize("size", [1, 4, 15, 36, 60])
def test_latents_that_make_no_map_are_an_error(size):
    with pytest.raises(SbmError, match=rf"size {size} .*4 levels, .* multiple of 8 \(64, 256, 576, \.\.\.\)"):
        UNet().init(jax.random.key(0), jnp.zeros((1, 2, size)), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool))


def test_a_dim_without_time_embedding_is_an_error(inputs):
    with pytest.raises(SbmError, match="even and at least 4, not 7"):
        UNet(dim=7, multipliers=(1,)).init(jax.random.key(0), *inputs)


def test_sinusoidal_embedding_equals_a_restatement():
    t = np.array([0.0, 0.37, 250.0])
    expected = [[wave(value * 10000.0 ** (-i / 3)) for wave in (np.sin, np.cos) for i in range(4)] for value in t]
    np.testing.assert_allclose(unet.sinusoidal_embedding(jnp.array(t), 8), expected, atol=2e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_attention_equals_a_restatement(linear):
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype(np.float32)
    module = Attention(num_heads=2, head_dim=4, linear=linear)
    variables = random_params(module, x)
    params = variables["params"]

    def softmax(values, axis):
        return np.exp(values) / np.exp(values).sum(axis=axis, keepdims=True)

    def norm(values, layer):
        scale, bias = params[layer]["scale"], params[layer]["bias"]
        return (values - values.mean()) / np.sqrt(values.var() + 1e-5) * scale[None] + bias[None]

    inputs = np.asarray(x, np.float64).reshape(6, 5)
    query, key, value = np.split(norm(inputs, "GroupNorm_0") @ params["Conv_0"]["kernel"][0, 0], 3, axis=1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        q, k, v = query[:, head], key[:, head], value[:, head]
        heads.append(0.5 * softmax(q, 1) @ (softmax(k, 0).T @ v) if linear else softmax(0.5 * q @ k.T, 1) @ v)
    y = np.concatenate(heads, axis=1) @ params["Conv_1"]["kernel"][0, 0] + params["Conv_1"]["bias"][None]
    expected = inputs + (norm(y, "GroupNorm_1") if linear else y)
    np.testing.assert_allclose(module.apply(variables, x).reshape(6, 5), expected, atol=1e-5)
