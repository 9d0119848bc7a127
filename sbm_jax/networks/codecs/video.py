"""A codec of videos: blocks of pixels become channels, convolved in space and time; the latent is a sequence."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import FeedForward, Heads
from sbm_jax.networks.codecs.series import SeriesOptions, check_moments
from sbm_jax.networks.images import crop, group_norm, pad, padded_sides
from sbm_jax.networks.moments import from_moments, num_moments, to_moments, with_neighbours
from sbm_jax.types import Array, Modality

SQUEEZE = 8
"""Channels of a moment's map next to the dense layers, which would otherwise have most of the parameters."""


@checked_dataclass
class VideoOptions(SeriesOptions):
    """Sizes of the encoder and the decoder.

    Attributes:
      patch: side of a block in pixels, a power of two; a block lasts one moment.
    """

    frames: int = 2
    patch: int = 8

    def __post_init__(self):
        super().__post_init__()
        power = self.patch >= 1 and self.patch & (self.patch - 1) == 0
        require(power, "codec.network.patch", self.patch, "a power of two")


class SpaceTimeBlock(nn.Module):
    """Residual convolutions, 3x3 in space, then in time over all channels at each position."""

    features: int
    reach: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, T, H, W, features] to the same shape."""
        batch, moments, height, width, features = x.shape
        frames = x.reshape(batch * moments, height, width, features)
        y = nn.Conv(features, (3, 3), dtype=self.dtype)(frames)
        x = x + nn.silu(group_norm(features)(y)).reshape(x.shape)
        # Each frame is normalised separately, so that no moment sees beyond its reach.
        y = nn.Dense(features, dtype=self.dtype)(with_neighbours(x, self.reach)).reshape(frames.shape)
        return x + nn.silu(group_norm(features)(y)).reshape(x.shape)


class VideoEncoder(nn.Module):
    """Turns blocks into channels, applies a `SpaceTimeBlock` per width, and encodes each moment in its latent part."""

    modality: Modality
    options: VideoOptions

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, T, H, W, C] to (mean, log variance) [B, D_m]."""
        options, dtype = self.options, jnp.dtype(self.options.dtype)
        x = _to_blocks(x, options)
        x = nn.silu(nn.Dense(options.widths[0], dtype=dtype)(x))
        for features in options.widths:
            x = SpaceTimeBlock(features, options.reach, dtype)(x)
        batch, moments = x.shape[:2]
        x = nn.Dense(SQUEEZE, dtype=dtype)(x).reshape(batch * moments, -1)
        x = nn.silu(nn.Dense(4 * options.widths[0], dtype=dtype)(x))
        mean, log_variance = Heads(self.modality.latent_size // moments)(x)
        return mean.reshape(batch, -1), log_variance.reshape(batch, -1)


class VideoDecoder(nn.Module):
    """The mirror image of `VideoEncoder`."""

    modality: Modality
    options: VideoOptions

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, T, H, W, C]."""
        options, dtype, shape = self.options, jnp.dtype(self.options.dtype), self.modality.shape
        moments = num_moments(shape[0], options.frames)
        height, width = (side // options.patch for side in padded_sides(shape[1:], options.patch.bit_length() - 1))
        x = nn.silu(nn.Dense(4 * options.widths[0], dtype=dtype)(z.reshape(len(z) * moments, -1)))
        x = nn.Dense(height * width * SQUEEZE, dtype=dtype)(x).reshape(len(z), moments, height, width, SQUEEZE)
        x = nn.silu(nn.Dense(options.widths[-1], dtype=dtype)(x))
        for features in reversed(options.widths):
            x = SpaceTimeBlock(features, options.reach, dtype)(x)
        x = nn.Dense(options.frames * options.patch**2 * shape[-1], dtype=jnp.float32)(x)
        return _from_blocks(x, shape, options)


def _to_blocks(x: Array, options: VideoOptions) -> Array:
    """Split zero-padded videos [B, T, H, W, C] into blocks [B, T', H', W', channels]."""
    batch, length, *frame = x.shape
    frames, patch = options.frames, options.patch
    x = pad(x.reshape(batch * length, *frame), patch.bit_length() - 1)
    height, width, channels = x.shape[1:]
    x = to_moments(x.reshape(batch, length, height // patch, patch, width // patch, patch, channels), frames)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(*x.shape[:4], -1)


def _from_blocks(x: Array, shape: tuple[int, ...], options: VideoOptions) -> Array:
    """Undo `_to_blocks`, for videos of the given shape (T, H, W, C)."""
    batch, moments, height, width, _ = x.shape
    frames, patch = options.frames, options.patch
    x = x.reshape(batch, moments, height, width, frames, patch, patch, shape[-1]).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    x = x.reshape(batch * moments * frames, height * patch, width * patch, shape[-1])
    return from_moments(crop(x, shape[1:]).reshape(batch, moments, frames, *shape[1:]), shape[0])


@dataclasses.dataclass(frozen=True)
class Video(FeedForward):
    """`VideoEncoder` and `VideoDecoder`; `widths` are the channels of each `SpaceTimeBlock`, all equal.

    The latent concatenates the parts of the video's moments in order, so that `num_tokens` can split it in time.
    """

    Options: ClassVar[type] = VideoOptions

    def __post_init__(self):
        super().__post_init__()
        modality, where = self.modality, f"modality {self.modality.name!r}"
        if len(modality.shape) != 4:
            raise SbmError(
                f"{where} with the codec 'video' needs the shape (frames, height, width, channels), "
                f"not {modality.shape}."
            )
        check_moments(modality, self.options)

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return VideoEncoder(self.modality, self.options)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return VideoDecoder(self.modality, self.options)
