"""The codec of what follows in time, and how it is cut into moments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, make_codec
from sbm_jax.networks.moments import from_moments, num_moments, to_moments, with_neighbours
from sbm_jax.types import CodecConfig, Modality

OPTIONS = {"widths": (8,), "frames": 3, "reach": 1}
SOUND = Modality("sound", (11, 5, 1), 8, CodecConfig("series", OPTIONS))
PICTURES = np.random.default_rng(0).random((2, *SOUND.shape), dtype=np.float32)


def _codec(modality=SOUND):
    return make_codec(modality, AutoencoderNetworkConfig())


def test_moments_come_back():
    moments = to_moments(jnp.asarray(PICTURES), 3)
    assert moments.shape == (2, num_moments(11, 3), 3, 5, 1)
    np.testing.assert_array_equal(moments[:, 1], PICTURES[:, 3:6])
    assert not moments[:, -1, -1].any()
    np.testing.assert_array_equal(from_moments(moments, 11), PICTURES)


def test_neighbours_are_beside_their_moment():
    x = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
    assert with_neighbours(x, 1)[0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]
    np.testing.assert_array_equal(with_neighbours(x, 0), x)


@pytest.mark.parametrize("shape", [SOUND.shape, (11,), (11, 4)])
def test_shapes(shape):
    codec = _codec(dataclasses.replace(SOUND, shape=shape))
    params = codec.init(jax.random.key(0))
    x = np.random.default_rng(1).random((2, *shape), dtype=np.float32)
    mean, log_variance = codec.encode(params, x)
    assert mean.shape == log_variance.shape == (2, 8)
    output = codec.decode(params, mean)
    assert output.shape == x.shape
    assert codec.loss(params, jax.random.key(1), x, output).shape == (2,)


def test_a_part_of_the_latent_tells_of_its_moment_and_its_neighbours():
    """There is one block of convolutions with a reach of 1."""
    codec = _codec()
    params = codec.init(jax.random.key(0))
    changed = PICTURES.copy()
    changed[:, 10] += 1.0  # the last frame, of the last moment
    parts = [np.asarray(codec.encode(params, x)[0]).reshape(2, 4, 2) for x in (PICTURES, changed)]
    assert np.isclose(*parts, atol=1e-6).all(axis=(0, 2)).tolist() == [True, True, False, False]
    z = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    other = z.copy()
    other[:, :2] += 1.0
    frames = [np.asarray(codec.decode(params, value)) for value in (z, other)]
    assert np.isclose(*frames, atol=1e-6).all(axis=(0, 2, 3)).tolist() == [False] * 6 + [True] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_size": 10}, "expected a multiple of 4, the number of moments"),
        ({"codec": CodecConfig("series", {**OPTIONS, "widths": (8, 16)})}, "needs equal widths"),
        ({"codec": CodecConfig("series", {**OPTIONS, "frames": 0})}, "frames is 0"),
        ({"codec": CodecConfig("series", {**OPTIONS, "reach": -1})}, "reach is -1"),
    ],
)
def test_what_can_not_be_encoded_is_refused(changes, message):
    with pytest.raises(SbmError, match=message):
        _codec(dataclasses.replace(SOUND, **changes))
