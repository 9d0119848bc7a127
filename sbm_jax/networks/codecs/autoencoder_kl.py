"""The autoencoder of latent diffusion models as a codec for images, the frames of videos, and spectrograms."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import FIRST_SCALE, FeedForward
from sbm_jax.networks.pretrained.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig, read_autoencoder_kl
from sbm_jax.networks.pretrained.weights import read_tensors
from sbm_jax.types import Array, Params


@checked_dataclass
class AutoencoderKLOptions:
    """Configures the network and its weights.

    Attributes:
      sizes: sizes of the network; Stable Diffusion's by default.
      weights: a safetensors file of initial weights; "" for fresh weights.
      frozen: whether to keep the weights of the file and train nothing.
      values: the network's input values for data of 0 and 1.
    """

    sizes: AutoencoderKLConfig = AutoencoderKLConfig()
    weights: str = ""
    frozen: bool = False
    values: tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self):
        ordered = len(self.values) == 2 and self.values[0] < self.values[1]
        require(ordered, "codec.network.values", self.values, "(low, high)")
        both = bool(self.weights) or not self.frozen
        require(both, "codec.network.weights", self.weights, "a file with the weights to freeze")

    def training_settings(self) -> dict[str, Any]:
        """Return what training depends on, except file contents; see `networks.codecs.training_settings`."""
        settings = plain(self)
        del settings["weights"]
        return settings


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of latent maps [B, T, h, w, c] of T frames in a latent vector: cells in order, T c entries each.

    Thus `num_tokens` = h w turns each cell into a token, and score networks see a map with frames as channels. As the
    UNet needs square maps, a map k² times as high as wide is cut into k bands, which are placed side by side.

    Attributes:
      frames: T.
      height: h.
      width: w.
      channels: c.
    """

    frames: int
    height: int
    width: int
    channels: int

    @property
    def bands(self) -> int:
        """Number of bands; 1 if the map is square already, or cannot be made square."""
        side = math.isqrt(self.height * self.width)
        return self.height // side if side**2 == self.height * self.width and self.height % side == 0 else 1

    @property
    def size(self) -> int:
        """Number of entries of the latent."""
        return self.frames * self.height * self.width * self.channels

    def flat(self, maps: Array) -> Array:
        """Flatten maps [B T, h, w, c] to latents [B, D_m]."""
        x = maps.reshape(-1, self.frames, self.bands, self.height // self.bands, self.width, self.channels)
        return x.transpose(0, 3, 2, 4, 1, 5).reshape(len(x), -1)

    def maps(self, z: Array) -> Array:
        """Undo `flat`."""
        bands = self.bands
        x = z.reshape(len(z), self.height // bands, bands, self.width, self.frames, self.channels)
        return x.transpose(0, 4, 2, 1, 3, 5).reshape(-1, self.height, self.width, self.channels)


class KLEncoder(nn.Module):
    """Encodes each frame.

    Attributes:
      options: see `AutoencoderKLOptions`.
      layout: layout of the latent.
    """

    options: AutoencoderKLOptions
    layout: Layout

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map data [B, ..., H, W, C] in [0, 1] to two arrays [B, D_m]."""
        low, high = self.options.values
        x = low + (high - low) * x.reshape(-1, *x.shape[-3:])
        mean, log_variance = AutoencoderKL(self.options.sizes, name="network").encode(x)
        return self.layout.flat(mean), self.layout.flat(log_variance)


class KLDecoder(nn.Module):
    """Decodes each frame.

    Attributes:
      options: see `AutoencoderKLOptions`.
      layout: layout of the latent.
      shape: shape of one example of the data.
    """

    options: AutoencoderKLOptions
    layout: Layout
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map latents [B, D_m] to data [B, *shape], whose values may leave [0, 1]."""
        low, high = self.options.values
        x = AutoencoderKL(self.options.sizes, name="network").decode(self.layout.maps(z))
        return ((x - low) / (high - low)).reshape(len(z), *self.shape)


@dataclasses.dataclass(frozen=True)
class AutoencoderKLCodec(FeedForward):
    """Stable Diffusion's autoencoder, applied to each frame; `Layout` describes its latents.

    If the codec is frozen and the modality sets no scale, the loss is the squared error.

    Reference: R. Rombach et al., 2022, 3.1. https://arxiv.org/abs/2112.10752
    """

    Options: ClassVar[type] = AutoencoderKLOptions

    def __post_init__(self):
        super().__post_init__()
        modality, sizes, where = self.modality, self.options.sizes, f"modality {self.modality.name!r}:"
        fits = len(modality.shape) in (3, 4) and modality.shape[-1] == sizes.channels
        fits = fits and all(side % sizes.factor == 0 for side in modality.shape[-3:-1])
        told = f"([frames,] height, width, {sizes.channels}), with sides that are multiples of {sizes.factor}"
        require(fits, f"{where} shape", modality.shape, told)
        require(modality.bounds == (0.0, 1.0), f"{where} bounds", modality.bounds, "(0, 1)")
        if modality.likelihood not in ("gaussian", "laplace"):
            raise SbmError(f"{where} likelihood is {modality.likelihood!r}; expected 'gaussian' or 'laplace'.")

    def _check_size(self) -> None:
        """Raise `SbmError` unless `latent_size` matches the layout; other codecs accept any size."""
        where = f"modality {self.modality.name!r}: latent_size"
        layout = self.layout
        told = f"{layout.size}: {layout.frames} maps of {layout.height}x{layout.width}x{layout.channels}"
        require(self.modality.latent_size == layout.size, where, self.modality.latent_size, told)

    @property
    def layout(self) -> Layout:
        """The layout of the latent."""
        shape, sizes = self.modality.shape, self.options.sizes
        height, width = (side // sizes.factor for side in shape[-3:-1])
        return Layout(math.prod(shape[:-3]), height, width, sizes.latent_channels)

    @property
    def encoder(self) -> KLEncoder:
        """The encoder's module."""
        self._check_size()
        return KLEncoder(self.options, self.layout)

    @property
    def decoder(self) -> KLDecoder:
        """The decoder's module."""
        self._check_size()
        return KLDecoder(self.options, self.layout, self.modality.shape)

    @property
    def is_calibrated(self) -> bool:
        """Whether the scale of the likelihood is learned; never if the codec is frozen."""
        return super().is_calibrated and not self.options.frozen

    def scale(self, params: Params) -> Array | float:
        """Return the scale of the likelihood."""
        return super().scale(params) if self.is_calibrated else self.modality.scale or FIRST_SCALE

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of data [B, *shape]."""
        return super().encode(self._held(params), x)

    def decode(self, params: Params, z: Array) -> Array:
        """Return the raw output [B, *shape] for latents [B, D_m]."""
        return super().decode(self._held(params), z)

    # MARK: Weights

    @property
    def files(self) -> dict[str, str]:
        """The file of initial weights, {option: path}."""
        return {"codec.network.weights": self.options.weights} if self.options.weights else {}

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts that are not trained."""
        return ("encoder", "decoder") if self.options.frozen else ()

    @property
    def is_frozen(self) -> bool:
        """Whether all parts are frozen."""
        return self.options.frozen

    def read(self) -> Params:
        """Read the parameters from the file.

        Raises:
          SbmError: if the file cannot be read, or a tensor is missing or has another shape.
        """
        option = "codec.network.weights"
        found = read_autoencoder_kl(self.options.sizes, read_tensors(self.options.weights, option), option)
        parts = {"encoder": ("encoder", "quant_conv"), "decoder": ("decoder", "post_quant_conv")}
        return {part: {"network": {name: found[name] for name in names}} for part, names in parts.items()}

    def _held(self, params: Params) -> Params:
        return jax.lax.stop_gradient(params) if self.options.frozen else params
