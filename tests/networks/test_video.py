"""The codec of videos."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, make_codec
from sbm_jax.networks.codecs.video import VideoOptions, _from_blocks, _to_blocks
from sbm_jax.types import CodecConfig, Modality

OPTIONS = {"widths": (8,), "patch": 4, "frames": 2, "reach": 1}
CLIP = Modality("clip", (7, 10, 12, 3), 8, CodecConfig("video", OPTIONS))
VIDEOS = np.random.default_rng(0).random((2, *CLIP.shape), dtype=np.float32)


def _codec(modality=CLIP):
    return make_codec(modality, AutoencoderNetworkConfig())


def test_blocks_come_back():
    options = VideoOptions(**OPTIONS)
    blocks = _to_blocks(jnp.asarray(VIDEOS), options)
    assert blocks.shape == (2, 4, 3, 3, 2 * 4 * 4 * 3)
    np.testing.assert_array_equal(_from_blocks(blocks, CLIP.shape, options), VIDEOS)


def test_shapes():
    codec = _codec()
    params = codec.init(jax.random.key(0))
    mean, log_variance = codec.encode(params, VIDEOS)
    assert mean.shape == log_variance.shape == (2, 8)
    output = codec.decode(params, mean)
    assert output.shape == VIDEOS.shape
    assert codec.loss(params, jax.random.key(1), VIDEOS, output).shape == (2,)


def test_a_part_of_the_latent_tells_of_its_moment_and_its_neighbours():
    """There is one block of convolutions with a reach of 1."""
    codec = _codec()
    params = codec.init(jax.random.key(0))
    changed = VIDEOS.copy()
    changed[:, 6] += 1.0  # the frame of the last moment
    parts = [np.asarray(codec.encode(params, x)[0]).reshape(2, 4, 2) for x in (VIDEOS, changed)]
    same = np.isclose(*parts, atol=1e-6).all(axis=(0, 2))
    assert same.tolist() == [True, True, False, False]
    z = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    other = z.copy()
    other[:, :2] += 1.0
    frames = [np.asarray(codec.decode(params, value)) for value in (z, other)]
    same = np.isclose(*frames, atol=1e-6).all(axis=(0, 2, 3, 4))
    assert same.tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (10, 12, 3)}, r"needs the shape \(frames, height, width, channels\)"),
        ({"latent_size": 10}, "expected a multiple of 4, the number of moments"),
        ({"codec": CodecConfig("video", {**OPTIONS, "widths": (8, 16)})}, "needs equal widths"),
        ({"codec": CodecConfig("video", {**OPTIONS, "patch": 3})}, "a power of two"),
        ({"codec": CodecConfig("video", {**OPTIONS, "frames": 0})}, "frames is 0"),
        ({"codec": CodecConfig("video", {**OPTIONS, "reach": -1})}, "reach is -1"),
    ],
)
def test_what_can_not_be_encoded_is_refused(changes, message):
    with pytest.raises(SbmError, match=message):
        _codec(dataclasses.replace(CLIP, **changes))
