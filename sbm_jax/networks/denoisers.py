"""Denoising networks for diffusion decoders of images.

All are `(x [B, H, W, C], t [B], maps [B, H, W, K] or None, vector [B, E] or None, train) -> [B, H, W, C]`, float32.
They take diffused images of unit variance, times in [0, 1], each image's condition as additional channels and as a
vector that modulates every layer, and whether to apply dropout.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.base import fourier_features
from sbm_jax.networks.convolutions import Conv, Window
from sbm_jax.networks.images import crop, group_norm, pad
from sbm_jax.registry import find
from sbm_jax.types import Array


@checked_dataclass
class DenoiserConfig:
    """Configures a denoising network.

    Attributes:
      name: a key of `DENOISERS`, or ``"package.module:ATTRIBUTE"`` for another factory with the same signature.
      width: channels (patch), or channels of the finest level (unet).
      depth: number of residual blocks (patch), or of residual blocks per level (unet).
      patch: side in pixels of the patches that become channels, a power of two (patch).
      head: features from which the pixels of each patch are computed (patch).
      coarse_width: channels of residual blocks on patches of four times the side, which process the whole image before
        the other blocks; 0 for none (patch).
      coarse_depth: number of these coarse blocks (patch).
      multipliers: width of each level as a multiple of `width`; the map is halved between levels (unet).
      attention: levels with attention, where 0 is the finest (unet).
      heads: attention heads, a divisor of the widths of these levels (unet).
      dropout: rate in the residual blocks.
      dtype: type of the operands, ``"float32"`` or ``"bfloat16"``; norms and the last layer are float32.
    """

    name: str = "patch"
    width: int = 96
    depth: int = 4
    patch: int = 4
    head: int = 384
    coarse_width: int = 0
    coarse_depth: int = 4
    multipliers: tuple[int, ...] = (1, 2, 2)
    attention: tuple[int, ...] = (2,)
    heads: int = 4
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        where = "denoiser: "
        require(self.coarse_width >= 0, where + "coarse_width", self.coarse_width, "0 or more")
        for name in ("width", "depth", "head", "heads", "coarse_depth"):
            require(getattr(self, name) >= 1, where + name, getattr(self, name), "at least 1")
        power = self.patch >= 1 and self.patch & (self.patch - 1) == 0
        require(power, where + "patch", self.patch, "a power of two")
        require(0 <= self.dropout < 1, where + "dropout", self.dropout, "0 to less than 1")
        require(self.dtype in ("float32", "bfloat16"), where + "dtype", self.dtype, "'float32' or 'bfloat16'")
        if self.name == "unet":
            self._check_levels(where)

    def _check_levels(self, where: str) -> None:
        positive = bool(self.multipliers) and min(self.multipliers) >= 1
        require(positive, where + "multipliers", self.multipliers, "one or more, each at least 1")
        levels = range(len(self.multipliers))
        known = all(level in levels for level in self.attention)
        require(known, where + "attention", self.attention, f"levels from 0 to {len(levels) - 1}")
        fits = all(self.width * self.multipliers[level] % self.heads == 0 for level in self.attention)
        require(fits, where + "heads", self.heads, "a divisor of the widths of the levels with attention")


class Condition(nn.Module):
    """Embeds times [B], and each image's condition vector [B, E] if there is one, to modulate all layers."""

    features: int

    @nn.compact
    def __call__(self, t: Array, vector: Array | None) -> Array:
        """Return [B, features]."""
        condition = nn.Dense(self.features)(nn.silu(nn.Dense(self.features)(fourier_features(t, 64))))
        if vector is not None:
            condition = condition + nn.Dense(self.features)(nn.silu(nn.Dense(self.features)(vector)))
        return nn.silu(condition)


def modulate(x: Array, condition: Array) -> Array:
    """Multiply maps [B, h, w, C] by 1 + scale and add a shift, both linear in a condition [B, E] and initially 0."""
    both = nn.Dense(2 * x.shape[-1], kernel_init=nn.initializers.zeros)(condition)
    scale, shift = jnp.split(both[:, None, None], 2, axis=-1)
    return x * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """The residual block of diffusion networks: x + conv(act(norm(x))) with one or two modulated convolutions.

    Attributes:
      features: channels of the result.
      convolutions: 1 or 2; if 2, the last is initialised with 0.
      dropout: rate before the last convolution.
      dtype: type of the operands.
    """

    features: int
    convolutions: int = 2
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        """Map [B, h, w, C] to [B, h, w, features], given a condition [B, E]."""
        y = x
        for number in range(self.convolutions):
            last = number == self.convolutions - 1
            y = group_norm(y.shape[-1])(y)
            y = nn.silu(modulate(y, condition) if last else y)
            if last and self.dropout:
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
            y = Conv(self.features, Window(3), zero=last and number > 0, dtype=self.dtype)(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, Window(1), dtype=self.dtype)(x)
        return x + y


COARSE_FEATURES = 16
"""Number of coarse features, computed from the whole image, that each patch receives."""


class PatchDenoiser(nn.Module):
    """A denoiser for CPUs: patches of pixels become channels of a small map, on which wide convolutions are fast.

    Sides are padded to a multiple of four patches, for which 3x3 convolutions use their fastest algorithm. With small
    patches, a few convolutions see little of an image, and locally plausible parts may not fit together: lines break.
    `coarse_width` gives each patch features of the whole image, at little cost.
    """

    config: DenoiserConfig

    @nn.compact
    def __call__(self, x: Array, t: Array, maps: Array | None, vector: Array | None, train: bool = False) -> Array:
        """Return the output [B, H, W, C]; see the module's docstring."""
        config, shape, patch = self.config, x.shape[1:], self.config.patch
        dtype = jnp.dtype(config.dtype)
        condition = Condition(2 * config.width)(t, vector)
        both = x if maps is None else jnp.concatenate([x, maps], axis=-1)
        halvings = (4 * patch).bit_length() - 1
        padded = pad(both, halvings)
        patches, seen = _to_patches(padded, patch), []
        if config.coarse_width:
            coarse = self._blocks(
                config.coarse_width, config.coarse_depth, _to_patches(padded, 4 * patch), condition, train
            )
            seen = [_from_patches(nn.Dense(16 * COARSE_FEATURES, dtype=dtype)(coarse), 4)]
        h = jnp.concatenate([patches, *seen], axis=-1)
        h = self._blocks(config.width, config.depth, h, condition, train).astype(jnp.float32)
        # Feed in each patch again, so that pixel noise need not pass through the few features of the map.
        y = nn.Dense(config.head, dtype=dtype)(jnp.concatenate([h, patches], axis=-1))
        y = nn.silu(modulate(y, condition)).astype(jnp.float32)
        y = nn.Dense(patch * patch * shape[-1])(jnp.concatenate([y, patches], axis=-1))
        return crop(_from_patches(y, patch), shape)

    def _blocks(self, width: int, depth: int, x: Array, condition: Array, train: bool) -> Array:
        """Map [B, h, w, C] to [B, h, w, width] by a convolution and residual blocks."""
        dtype = jnp.dtype(self.config.dtype)
        h = Conv(width, Window(3), dtype=dtype)(x)
        for _ in range(depth):
            h = ModulatedBlock(width, 1, self.config.dropout, dtype)(h, condition, train)
        return nn.silu(group_norm(width)(h))


def _to_patches(x: Array, patch: int) -> Array:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // patch, width // patch, -1)


def _from_patches(x: Array, patch: int) -> Array:
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * patch, width * patch, -1)


class SelfAttention(nn.Module):
    """Residual self-attention between the positions of a map, after a norm."""

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, h, w, C] to the same shape."""
        batch, height, width, channels = x.shape
        y = nn.Dense(3 * channels, dtype=self.dtype)(group_norm(channels)(x))
        parts = y.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        y = jax.nn.dot_product_attention(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2])
        last = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype)
        return x + last(y.reshape(x.shape))


class UNetDenoiser(nn.Module):
    """A denoiser for accelerators: the UNet of DDPM and its successors, with attention at low resolutions.

    Reference: P. Dhariwal and A. Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021.
      https://arxiv.org/abs/2105.05233
    """

    config: DenoiserConfig

    @nn.compact
    def __call__(self, x: Array, t: Array, maps: Array | None, vector: Array | None, train: bool = False) -> Array:
        """Return the output [B, H, W, C]; see the module's docstring."""
        config, shape = self.config, x.shape[1:]
        dtype, last = jnp.dtype(config.dtype), len(config.multipliers) - 1
        condition = Condition(4 * config.width)(t, vector)
        block = functools.partial(ModulatedBlock, dropout=config.dropout, dtype=dtype)
        conv = functools.partial(Conv, dtype=dtype)
        both = x if maps is None else jnp.concatenate([x, maps], axis=-1)
        h = conv(config.width, Window(3))(pad(both, last))
        kept = [h]
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.depth):
                h = block(config.width * multiplier)(h, condition, train)
                if level in config.attention:
                    h = SelfAttention(config.heads, dtype)(h)
                kept.append(h)
            if level < last:
                h = conv(h.shape[-1], Window(3, stride=2))(h)
                kept.append(h)
        h = block(h.shape[-1])(h, condition, train)
        if last in config.attention:
            h = SelfAttention(config.heads, dtype)(h)
        h = block(h.shape[-1])(h, condition, train)
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for _ in range(config.depth + 1):
                h = block(config.width * multiplier)(jnp.concatenate([h, kept.pop()], axis=-1), condition, train)
                if level in config.attention:
                    h = SelfAttention(config.heads, dtype)(h)
            if level:
                h = conv(h.shape[-1], Window(3))(jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2))
        h = nn.silu(group_norm(h.shape[-1])(h))
        return crop(Conv(shape[-1], Window(3), zero=True)(h.astype(jnp.float32)), shape)


DENOISERS: dict[str, Callable[[DenoiserConfig], nn.Module]] = {"patch": PatchDenoiser, "unet": UNetDenoiser}
"""Factories of denoisers, by name."""


def make_denoiser(config: DenoiserConfig) -> nn.Module:
    """Return the denoiser that a config names.

    Raises:
      SbmError: on an unknown name.
    """
    return find("denoiser", config.name, DENOISERS, Callable)(config)
