"""A codec of time series, such as spectrograms and movements, whose latent is a sequence."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import AutoencoderNetworkConfig, FeedForward, Heads
from sbm_jax.networks.moments import TimeBlock, from_moments, num_moments, to_moments
from sbm_jax.types import Array, Modality


@checked_dataclass
class SeriesOptions(AutoencoderNetworkConfig):
    """Sizes of the encoder and the decoder.

    Attributes:
      frames: frames per moment. Each moment has an equal part of the latent.
      reach: number of moments that a convolution sees before and after each moment.
    """

    frames: int = 4
    reach: int = 2

    def __post_init__(self):
        super().__post_init__()
        require(self.frames >= 1, "codec.network.frames", self.frames, "at least 1")
        require(self.reach >= 0, "codec.network.reach", self.reach, "0 or more")


class SeriesEncoder(nn.Module):
    """Turns moments into channels, applies a `TimeBlock` per width, and encodes each moment in its latent part."""

    modality: Modality
    options: SeriesOptions

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, T, ...] to (mean, log variance) [B, D_m]."""
        options, dtype = self.options, jnp.dtype(self.options.dtype)
        x = to_moments(x, options.frames)
        batch, moments = x.shape[:2]
        x = nn.Dense(options.widths[0], dtype=dtype)(x.reshape(batch, moments, -1))
        for features in options.widths:
            x = TimeBlock(features, options.reach, dtype)(x)
        mean, log_variance = Heads(self.modality.latent_size // moments)(nn.LayerNorm()(x))
        return mean.reshape(batch, -1), log_variance.reshape(batch, -1)


class SeriesDecoder(nn.Module):
    """The mirror image of `SeriesEncoder`."""

    modality: Modality
    options: SeriesOptions

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, T, ...]."""
        options, dtype, (length, *frame) = self.options, jnp.dtype(self.options.dtype), self.modality.shape
        moments = num_moments(length, options.frames)
        x = nn.Dense(options.widths[-1], dtype=dtype)(z.reshape(len(z), moments, -1))
        for features in reversed(options.widths):
            x = TimeBlock(features, options.reach, dtype)(x)
        x = nn.Dense(options.frames * math.prod(frame), dtype=jnp.float32)(nn.LayerNorm()(x))
        return from_moments(x.reshape(len(z), moments, options.frames, *frame), length)


@dataclasses.dataclass(frozen=True)
class Series(FeedForward):
    """`SeriesEncoder` and `SeriesDecoder`; `widths` are the channels of each convolution in time, all equal.

    The first axis of the data is time; all others are flattened to one feature vector. The latent concatenates the
    parts of the moments in order, so that `num_tokens` can split it in time.
    """

    Options: ClassVar[type] = SeriesOptions

    def __post_init__(self):
        super().__post_init__()
        check_moments(self.modality, self.options)

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return SeriesEncoder(self.modality, self.options)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return SeriesDecoder(self.modality, self.options)


def check_moments(modality: Modality, options: Any) -> None:
    """Raise `SbmError` if widths differ, or the latent cannot be split equally between moments."""
    where, codec = f"modality {modality.name!r}", modality.codec.name
    if len(set(options.widths)) != 1:
        raise SbmError(
            f"{where}: the codec {codec!r} needs equal widths, not {options.widths}. Set them in codec.network, "
            "or for all modalities in config.autoencoder.network."
        )
    moments = num_moments(modality.shape[0], options.frames)
    if modality.latent_size % moments:
        raise SbmError(
            f"{where}: latent_size is {modality.latent_size}; expected a multiple of {moments}, the number of "
            f"moments of {options.frames} frames."
        )
