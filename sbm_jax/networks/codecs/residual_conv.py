"""The codec of the SBM paper: residual convolutions, for images."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.networks.codecs.base import FeedForward, Heads
from sbm_jax.networks.images import check_shape, crop, group_norm, pad, padded_sides
from sbm_jax.types import Array, Modality


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


def _pool(x: Array, factor: int = 2) -> Array:
    return nn.avg_pool(x, (factor, factor), (factor, factor))


def _upsample(x: Array, factor: int = 2) -> Array:
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


class ResidualBlock(nn.Module):
    """conv-norm-act-conv-norm plus a shortcut, then act: the block of Daniel & Tamar (2021)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, C] to [B, H, W, features]."""
        conv = functools.partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype)
        hidden = _leaky(group_norm(self.features)(conv((3, 3))(x)))
        hidden = group_norm(self.features)(conv((3, 3))(hidden))
        if x.shape[-1] != self.features:
            x = conv((1, 1))(x)
        return _leaky(x + hidden)


class ResidualConvEncoder(nn.Module):
    """The paper's encoder: conv 5x5, then residual blocks, each followed by a halving of the map.

    Images whose sides are no multiple of 2^(len(widths) + 1) are zero-padded (28 -> 32, as in the paper). The last map
    is flattened for both heads; the authors split it on channels, one half for each.
    """

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        x = pad(x, len(self.widths) + 1)
        x = nn.Conv(self.widths[0], (5, 5), use_bias=False, dtype=self.dtype)(x)
        x = _pool(_leaky(group_norm(self.widths[0])(x)))
        for width in self.widths:
            x = _pool(ResidualBlock(width, self.dtype)(x))
        return Heads(self.modality.latent_size)(x.reshape(x.shape[0], -1))


class ResidualConvDecoder(nn.Module):
    """The paper's decoder: a dense layer to a small map, residual blocks with nearest up-sampling, conv 5x5."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        shape = self.modality.shape
        height, width = (side // 2 ** len(self.widths) for side in padded_sides(shape, len(self.widths) + 1))
        x = nn.relu(nn.Dense(height * width * self.widths[-1])(z))
        x = x.reshape(-1, height, width, self.widths[-1])
        for features in reversed(self.widths):
            x = _upsample(ResidualBlock(features, self.dtype)(x))
        x = ResidualBlock(self.widths[0], self.dtype)(x)
        return crop(nn.Conv(shape[-1], (5, 5), dtype=jnp.float32)(x), shape)


@dataclasses.dataclass(frozen=True)
class ResidualConv(FeedForward):
    """`ResidualConvEncoder` and `ResidualConvDecoder`; `widths`: channels before each halving of the map."""

    def __post_init__(self):
        super().__post_init__()
        check_shape(self.modality)

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return ResidualConvEncoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return ResidualConvDecoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))
