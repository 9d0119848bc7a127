"""A small codec of images for CPUs, where wide convolutions on small maps are fast and narrow ones on large are not."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs.base import FeedForward, Heads
from sbm_jax.networks.codecs.images import check_shape, crop, group_norm, pad, padded_sides
from sbm_jax.types import Array, Modality

PATCH = 4
"""Pixels along a side of the patches that the codec turns into channels."""

SQUEEZE = 16
"""Channels of its maps where they meet the dense layers, which would have most of its parameters otherwise."""


class PatchConvolution(nn.Module):
    """x + act(norm(conv 3x3)): the residual block of this codec."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, features] to the same shape."""
        return x + nn.silu(group_norm(self.features)(nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)))


class PatchEncoder(nn.Module):
    """Patches of 4x4 pixels become channels; one residual convolution for each width, all equal, then a dense layer."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        x = pad(x, 2)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height // PATCH, width // PATCH, PATCH * PATCH * channels)
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

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        shape = self.modality.shape
        height, width = (side // PATCH for side in padded_sides(shape, 2))
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(z))
        x = nn.Dense(height * width * SQUEEZE, dtype=self.dtype)(x).reshape(-1, height, width, SQUEEZE)
        x = nn.silu(nn.Dense(self.widths[-1], dtype=self.dtype)(x))
        for features in reversed(self.widths):
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Conv(PATCH * PATCH * shape[-1], (3, 3), dtype=jnp.float32)(x)
        x = x.reshape(-1, height, width, PATCH, PATCH, shape[-1]).transpose(0, 1, 3, 2, 4, 5)
        return crop(x.reshape(-1, PATCH * height, PATCH * width, shape[-1]), shape)


@dataclasses.dataclass(frozen=True)
class Patch(FeedForward):
    """`PatchEncoder` and `PatchDecoder`; `widths`: channels of each residual convolution, all equal."""

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
        return PatchEncoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return PatchDecoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))
