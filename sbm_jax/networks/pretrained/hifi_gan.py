"""HiFi-GAN's generator, which converts mel spectrograms to waveforms.

Reference: J. Kong et al., "HiFi-GAN", 2020. https://arxiv.org/abs/2010.05646. Equivalent to
  `transformers.SpeechT5HifiGan`, the vocoder of SpeechT5 and AudioLDM.

    hf download cvssp/audioldm vocoder/diffusion_pytorch_model.safetensors   (or microsoft/speecht5_hifigan)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.pretrained.weights import Tensors, as_params
from sbm_jax.types import Array, Params


@checked_dataclass
class HifiGanConfig:
    """Sizes of HiFi-GAN; those of AudioLDM's vocoder, for 16 kHz, by default.

    Attributes:
      num_bands: mel bands of the spectrogram.
      width: initial channels, halved by every upsampling.
      rates: factors of the upsamplings; their product is the number of samples per frame.
      kernels: kernel size of each upsampling.
      residual_kernels: kernel sizes of the residual blocks, whose outputs are averaged.
      dilations: dilations of the residual blocks' convolutions.
      standardized: whether to standardise the spectrogram by a mean and a scale from the file.
    """

    num_bands: int = 64
    width: int = 1024
    rates: tuple[int, ...] = (5, 4, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    residual_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    standardized: bool = False

    def __post_init__(self):
        for name in ("num_bands", "width"):
            require(getattr(self, name) >= 1, f"hifi_gan: {name}", getattr(self, name), "at least 1")
        for name in ("rates", "residual_kernels", "dilations"):
            positive = bool(getattr(self, name)) and min(getattr(self, name)) >= 1
            require(positive, f"hifi_gan: {name}", getattr(self, name), "one or more positive numbers")
        fits = len(self.kernels) == len(self.rates)
        fits = fits and all(k >= r and (k - r) % 2 == 0 for k, r in zip(self.kernels, self.rates, strict=True))
        require(
            fits, "hifi_gan: kernels", self.kernels, f"one for each of rates {self.rates}, larger by an even number"
        )
        divides = self.width % 2 ** len(self.rates) == 0
        require(divides, "hifi_gan: width", self.width, f"a multiple of 2 to the number of rates ({len(self.rates)})")


class HifiGan(nn.Module):
    """The generator.

    Attributes:
      config: its sizes.
    """

    config: HifiGanConfig

    @nn.compact
    def __call__(self, mel: Array) -> Array:
        """Map log mel spectrograms [B, T, num_bands] to waveforms [B, T times the product of rates] in [-1, 1]."""
        config = self.config
        if config.standardized:
            mean = self.param("mean", nn.initializers.zeros, (config.num_bands,))
            deviation = self.param("deviation", nn.initializers.ones, (config.num_bands,))
            mel = (mel - mean[None, None]) / deviation[None, None]
        x, width = nn.Conv(config.width, (7,), name="conv_pre")(mel), config.width
        blocks = len(config.residual_kernels)
        for level, (rate, kernel) in enumerate(zip(config.rates, config.kernels, strict=True)):
            width //= 2
            x = _Upsampling(width, rate, kernel, name=f"upsampler.{level}")(nn.leaky_relu(x, 0.1))
            parts = [
                _ResidualBlock(size, config.dilations, name=f"resblocks.{level * blocks + number}")(x)
                for number, size in enumerate(config.residual_kernels)
            ]
            x = sum(parts) / blocks
        return jnp.tanh(nn.Conv(1, (7,), name="conv_post")(nn.leaky_relu(x, 0.01)))[:, :, 0]


class _Upsampling(nn.Module):
    """A transposed convolution."""

    width: int
    rate: int
    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("weight", nn.initializers.normal(0.01), (x.shape[-1], self.width, self.kernel))
        around = self.kernel - 1 - (self.kernel - self.rate) // 2
        kernel = jnp.flip(weight, 2).transpose(2, 0, 1)
        numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NWC", "WIO", "NWC"))
        y = jax.lax.conv_general_dilated(x, kernel, (1,), [(around, around)], (self.rate,), dimension_numbers=numbers)
        return y + self.param("bias", nn.initializers.zeros, (self.width,))[None, None]


class _ResidualBlock(nn.Module):
    kernel: int
    dilations: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width, size = x.shape[-1], (self.kernel,)
        for number, dilation in enumerate(self.dilations):
            y = nn.leaky_relu(x, 0.1)
            y = nn.Conv(width, size, kernel_dilation=(dilation,), name=f"convs1.{number}")(y)
            x = x + nn.Conv(width, size, name=f"convs2.{number}")(nn.leaky_relu(y, 0.1))
        return x


def read_hifi_gan(config: HifiGanConfig, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `HifiGan`; weights may be stored as norms and directions.

    Raises:
      SbmError: see `as_params`.
    """
    named = _without_weight_norm(tensors)
    if "scale" in named:
        named["deviation"] = named.pop("scale")
    mel = jax.ShapeDtypeStruct((1, 1, config.num_bands), jnp.float32)
    return as_params(HifiGan(config), (mel,), named, option)


def _without_weight_norm(tensors: Tensors) -> dict[str, np.ndarray]:
    """Replace the parts g and v of each weight, whose names depend on the version of PyTorch, by g v / ‖v‖."""
    named = dict(tensors)
    for norm, direction in (
        (".weight_g", ".weight_v"),
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    ):
        for name in [name for name in named if name.endswith(norm)]:
            layer = name.removesuffix(norm)
            if layer + direction in named:
                g, v = named.pop(name), named.pop(layer + direction)
                axes = tuple(range(1, v.ndim))
                named[f"{layer}.weight"] = g * v / np.sqrt(np.square(v).sum(axis=axes, keepdims=True))
    return named
