"""A small image codec for CPUs, on which wide convolutions on small maps are faster than narrow ones on large maps."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import AutoencoderNetworkConfig, FeedForward, Heads
from sbm_jax.networks.images import check_shape, crop, group_norm, pad, padded_sides
from sbm_jax.types import Array, Modality

SQUEEZE = 16
"""Channels of the maps next to the dense layers, which would otherwise have most of the parameters."""


@checked_dataclass
class PatchOptions(AutoencoderNetworkConfig):
    """Sizes of the encoder and the decoder.

    Attributes:
      patch: side in pixels of the patches that become channels, a power of two; use larger patches for larger images,
        as the cost decreases with the square of the side.
    """

    patch: int = 4

    def __post_init__(self):
        super().__post_init__()
        power = self.patch >= 1 and self.patch & (self.patch - 1) == 0
        require(power, "codec.network.patch", self.patch, "a power of two")


class PatchConvolution(nn.Module):
    """x + act(norm(conv 3x3)): the residual block of this codec."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, features] to the same shape."""
        return x + nn.silu(group_norm(self.features)(nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)))


class PatchEncoder(nn.Module):
    """Turns patches of pixels into channels, then applies a residual convolution per width and a dense layer."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32
    patch: int = 4

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        patch = self.patch
        x = pad(x, patch.bit_length() - 1)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height // patch, width // patch, patch * patch * channels)
        x = nn.silu(nn.Dense(self.widths[0], dtype=self.dtype)(x))
        for features in self.widths:
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Dense(SQUEEZE, dtype=self.dtype)(x).reshape(batch, -1)
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(x))
        return Heads(self.modality.latent_size)(x)


class PatchDecoder(nn.Module):
    """The mirror image of `PatchEncoder`."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32
    patch: int = 4

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        shape, patch = self.modality.shape, self.patch
        height, width = (side // patch for side in padded_sides(shape, patch.bit_length() - 1))
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(z))
        x = nn.Dense(height * width * SQUEEZE, dtype=self.dtype)(x).reshape(-1, height, width, SQUEEZE)
        x = nn.silu(nn.Dense(self.widths[-1], dtype=self.dtype)(x))
        for features in reversed(self.widths):
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Conv(patch * patch * shape[-1], (3, 3), dtype=jnp.float32)(x)
        x = x.reshape(-1, height, width, patch, patch, shape[-1]).transpose(0, 1, 3, 2, 4, 5)
        return crop(x.reshape(-1, patch * height, patch * width, shape[-1]), shape)


@dataclasses.dataclass(frozen=True)
class Patch(FeedForward):
    """`PatchEncoder` and `PatchDecoder`; `widths` are the channels of each residual convolution, all equal."""

    Options: ClassVar[type] = PatchOptions

    def __post_init__(self):
        super().__post_init__()
        check_shape(self.modality)
        if len(set(self.options.widths)) != 1:
            raise SbmError(
                f"modality {self.modality.name!r}: the codec 'patch' needs equal widths, not {self.options.widths}. "
                "Set them in codec.network, or for all modalities in config.autoencoder.network."
            )

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return PatchEncoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype), self.options.patch)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return PatchDecoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype), self.options.patch)
