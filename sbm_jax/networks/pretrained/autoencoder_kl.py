"""The autoencoder of latent diffusion models, for images (Stable Diffusion) or mel spectrograms (AudioLDM).

Reference: R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022.
  https://arxiv.org/abs/2112.10752. Equivalent to `diffusers.AutoencoderKL`.

    hf download stabilityai/sd-vae-ft-mse diffusion_pytorch_model.safetensors
"""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.pretrained.weights import Tensors, as_params
from sbm_jax.types import Array, Params


@checked_dataclass
class AutoencoderKLConfig:
    """Sizes of the autoencoder; Stable Diffusion's by default.

    Attributes:
      channels: channels of the data.
      latent_channels: channels of the latent map.
      widths: channels of each level; the map is halved between levels.
      depth: residual blocks per level of the encoder; the decoder has one more.
      groups: groups of the norms, a divisor of all widths.
      scaling: factor on latents that gives them about unit variance.
    """

    channels: int = 3
    latent_channels: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    depth: int = 2
    groups: int = 32
    scaling: float = 0.18215

    def __post_init__(self):
        for name in ("channels", "latent_channels", "depth", "groups"):
            require(getattr(self, name) >= 1, f"autoencoder_kl: {name}", getattr(self, name), "at least 1")
        fits = bool(self.widths) and all(width >= 1 and width % self.groups == 0 for width in self.widths)
        require(fits, "autoencoder_kl: widths", self.widths, f"one or more multiples of groups ({self.groups})")
        require(self.scaling > 0, "autoencoder_kl: scaling", self.scaling, "more than 0")

    @property
    def factor(self) -> int:
        """Side in pixels of the patch that one position of the latent map represents."""
        return 2 ** (len(self.widths) - 1)


class AutoencoderKL(nn.Module):
    """The encoder and decoder.

    Attributes:
      config: their sizes.
    """

    config: AutoencoderKLConfig

    def setup(self):
        """Make the layers."""
        channels = self.config.latent_channels
        self.encoder, self.decoder = _Encoder(self.config), _Decoder(self.config)
        self.quant_conv, self.post_quant_conv = nn.Conv(2 * channels, (1, 1)), nn.Conv(channels, (1, 1))

    def __call__(self, x: Array) -> Array:
        """Reconstruct data from the posterior mean; initialises all parameters."""
        return self.decode(self.encode(x)[0])

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Map data [B, H, W, C] in [-1, 1] to mean and log variance, [B, H / factor, W / factor, latent channels] each.

        The mean is multiplied by `scaling`, and the variance by its square.

        Raises:
          SbmError: if a side is not a multiple of the config's `factor`.
        """
        factor = self.config.factor
        whole = x.shape[1] % factor == 0 and x.shape[2] % factor == 0
        require(whole, "autoencoder_kl: height and width", x.shape[1:3], f"multiples of {factor}")
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(x)), 2, axis=-1)
        scaling = self.config.scaling
        return mean * scaling, jnp.clip(log_variance, -30.0, 20.0) + 2 * np.log(scaling)

    def decode(self, z: Array) -> Array:
        """Map a scaled latent map to data [B, H, W, C], whose values may leave [-1, 1]."""
        return self.decoder(self.post_quant_conv(z / self.config.scaling))


class _Encoder(nn.Module):
    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        config, block = self.config, functools.partial(_ResidualBlock, groups=self.config.groups)
        x = _conv(config.widths[0], "conv_in")(x)
        for level, width in enumerate(config.widths):
            where = f"down_blocks.{level}"
            for number in range(config.depth):
                x = block(width, name=f"{where}.resnets.{number}")(x)
            if level + 1 < len(config.widths):
                padding = ((0, 1), (0, 1))
                x = nn.Conv(width, (3, 3), (2, 2), padding, name=f"{where}.downsamplers.0.conv")(x)
        x = _Middle(config.groups, name="mid_block")(x)
        x = nn.silu(_norm(config.groups, "conv_norm_out")(x))
        return _conv(2 * config.latent_channels, "conv_out")(x)


class _Decoder(nn.Module):
    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, z: Array) -> Array:
        config, block = self.config, functools.partial(_ResidualBlock, groups=self.config.groups)
        x = _conv(config.widths[-1], "conv_in")(z)
        x = _Middle(config.groups, name="mid_block")(x)
        for level, width in enumerate(reversed(config.widths)):
            where = f"up_blocks.{level}"
            for number in range(config.depth + 1):
                x = block(width, name=f"{where}.resnets.{number}")(x)
            if level + 1 < len(config.widths):
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = _conv(width, f"{where}.upsamplers.0.conv")(x)
        x = nn.silu(_norm(config.groups, "conv_norm_out")(x))
        return _conv(config.channels, "conv_out")(x)


class _Middle(nn.Module):
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = _ResidualBlock(x.shape[-1], self.groups, name="resnets.0")(x)
        x = _Attention(self.groups, name="attentions.0")(x)
        return _ResidualBlock(x.shape[-1], self.groups, name="resnets.1")(x)


class _ResidualBlock(nn.Module):
    width: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = _conv(self.width, "conv1")(nn.silu(_norm(self.groups, "norm1")(x)))
        y = _conv(self.width, "conv2")(nn.silu(_norm(self.groups, "norm2")(y)))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), name="conv_shortcut")(x)
        return x + y


class _Attention(nn.Module):
    """Residual single-head attention between the positions of a map."""

    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        y = _norm(self.groups, "group_norm")(x).reshape(len(x), -1, 1, width)
        query, key, value = (nn.Dense(width, name=f"to_{part}")(y) for part in "qkv")
        y = jax.nn.dot_product_attention(query, key, value)
        return x + nn.Dense(width, name="to_out.0")(y).reshape(x.shape)


def _conv(width: int, name: str) -> nn.Conv:
    return nn.Conv(width, (3, 3), name=name)


def _norm(groups: int, name: str) -> nn.GroupNorm:
    return nn.GroupNorm(groups, epsilon=1e-6, name=name)


def read_autoencoder_kl(config: AutoencoderKLConfig, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `AutoencoderKL`.

    Older files, whose attention layers have other names and may be stored as 1x1 convolutions, are supported too.

    Raises:
      SbmError: see `as_params`.
    """
    older = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    named = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.*\.attentions\.0\.)(\w+)(\.\w+)", name)
        if found and found[2] in older:
            name, tensor = found[1] + older[found[2]] + found[3], tensor.reshape(tensor.shape[:2])
        named[name] = tensor
    side = config.factor
    x = jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32)
    return as_params(AutoencoderKL(config), (x,), named, option)
