"""The image codec of the SBM paper, made of residual convolutions."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import AutoencoderNetworkConfig, FeedForward, Heads
from sbm_jax.networks.images import check_shape, crop, group_norm, pad, padded_sides
from sbm_jax.types import Array, Modality


@checked_dataclass
class ResidualConvOptions(AutoencoderNetworkConfig):
    """Sizes of the encoder and the decoder. The defaults are the paper's for 28x28.

    Attributes:
      widths: channels before each reduction of the map.
      stem: channels of the first convolution; 0 for the first of `widths`.
      factors: factor of each reduction of the map's sides, powers of two; () for 2 each.
      smooth: whether to use GELU in the blocks and bilinear up-sampling, as in the paper for 128x128, instead of leaky
        ReLU and repeated pixels.
    """

    stem: int = 0
    factors: tuple[int, ...] = ()
    smooth: bool = False

    def __post_init__(self):
        super().__post_init__()
        require(self.stem >= 0, "codec.network.stem", self.stem, "0 (the first width) or more")
        if self.factors and len(self.factors) != len(self.widths):
            raise SbmError(
                f"codec.network.factors is {self.factors}; expected one for each of {len(self.widths)} widths, or none."
            )
        powers = all(factor >= 1 and factor & (factor - 1) == 0 for factor in self.factors)
        require(powers, "codec.network.factors", self.factors, "powers of two")

    @property
    def reductions(self) -> tuple[int, ...]:
        """The factor by which each width's reduction divides the sides of the map."""
        return self.factors or (2,) * len(self.widths)

    @property
    def first(self) -> int:
        """Channels of the first convolution."""
        return self.stem or self.widths[0]

    @property
    def num_halvings(self) -> int:
        """Number of times that the encoder halves the map, counting the one after the first convolution."""
        return 1 + sum(factor.bit_length() - 1 for factor in self.reductions)


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


def _activation(smooth: bool) -> Callable[[Array], Array]:
    return functools.partial(nn.gelu, approximate=False) if smooth else _leaky


def _pool(x: Array, factor: int = 2) -> Array:
    return nn.avg_pool(x, (factor, factor), (factor, factor))


def _upsample(x: Array, factor: int, smooth: bool) -> Array:
    if smooth:
        batch, height, width, channels = x.shape
        return jax.image.resize(x, (batch, factor * height, factor * width, channels), "bilinear")
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


class ResidualBlock(nn.Module):
    """conv-norm-act-conv-norm plus a shortcut, then act: the block of Daniel & Tamar (2021)."""

    features: int
    dtype: Any = jnp.float32
    smooth: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, C] to [B, H, W, features]."""
        act = _activation(self.smooth)
        conv = functools.partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype)
        hidden = act(group_norm(self.features)(conv((3, 3))(x)))
        hidden = group_norm(self.features)(conv((3, 3))(hidden))
        if x.shape[-1] != self.features:
            x = conv((1, 1))(x)
        return act(x + hidden)


class ResidualConvEncoder(nn.Module):
    """The paper's encoder: a 5x5 convolution, then residual blocks, each followed by a reduction of the map.

    Images are zero-padded to sides that the reductions divide (28 -> 32, as in the paper). Both heads receive the whole
    last map, flattened; the authors instead give each head one half of its channels.
    """

    modality: Modality
    options: ResidualConvOptions

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        options, dtype = self.options, jnp.dtype(self.options.dtype)
        x = pad(x, options.num_halvings)
        x = nn.Conv(options.first, (5, 5), use_bias=False, dtype=dtype)(x)
        x = _pool(_leaky(group_norm(options.first)(x)))
        for width, factor in zip(options.widths, options.reductions, strict=True):
            x = _pool(ResidualBlock(width, dtype, options.smooth)(x), factor)
        return Heads(self.modality.latent_size)(x.reshape(x.shape[0], -1))


class ResidualConvDecoder(nn.Module):
    """The paper's decoder: a dense layer to a small map, residual blocks with up-sampling, and a 5x5 convolution."""

    modality: Modality
    options: ResidualConvOptions

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        options, dtype, shape = self.options, jnp.dtype(self.options.dtype), self.modality.shape
        sides = padded_sides(shape, options.num_halvings)
        height, width = (side // math.prod(options.reductions) for side in sides)
        x = nn.relu(nn.Dense(height * width * options.widths[-1])(z))
        x = x.reshape(-1, height, width, options.widths[-1])
        for features, factor in zip(reversed(options.widths), reversed(options.reductions), strict=True):
            x = _upsample(ResidualBlock(features, dtype, options.smooth)(x), factor, options.smooth)
        x = ResidualBlock(options.first, dtype)(x)
        return crop(nn.Conv(shape[-1], (5, 5), dtype=jnp.float32)(x), shape)


@dataclasses.dataclass(frozen=True)
class ResidualConv(FeedForward):
    """`ResidualConvEncoder` and `ResidualConvDecoder`; see `ResidualConvOptions`."""

    Options: ClassVar[type] = ResidualConvOptions

    def __post_init__(self):
        super().__post_init__()
        check_shape(self.modality)

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return ResidualConvEncoder(self.modality, self.options)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return ResidualConvDecoder(self.modality, self.options)
