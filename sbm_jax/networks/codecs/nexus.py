"""Nexus's networks for the images and sounds of MHD, which the SBM paper's experiment on MHD also uses."""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.codecs.base import FeedForward, Heads
from sbm_jax.networks.images import check_shape, group_norm
from sbm_jax.types import Array, Modality

_HALVINGS = 2


@checked_dataclass
class NexusImageOptions:
    """Sizes of the networks for images.

    Attributes:
      channels: channels of the two convolutions, each of which halves the map.
      hidden: units of the two dense layers.
    """

    channels: tuple[int, ...] = (32, 64)
    hidden: int = 128

    def __post_init__(self):
        fits = len(self.channels) == _HALVINGS and min(self.channels) >= 1
        require(fits, "codec.network.channels", self.channels, "two positive sizes")
        require(self.hidden >= 1, "codec.network.hidden", self.hidden, "at least 1")


@checked_dataclass
class NexusSoundOptions:
    """Sizes of the networks for sounds.

    Attributes:
      channels: channels of the convolution over all bands of a frame, and of the two convolutions over frames, each of
        which halves their number.
    """

    channels: tuple[int, ...] = (128, 128, 256)

    def __post_init__(self):
        fits = len(self.channels) == 1 + _HALVINGS and min(self.channels) >= 1
        require(fits, "codec.network.channels", self.channels, "three positive sizes")


def _as_output(modality: Modality, x: Array) -> Array:
    """Map values to (0, 1), unless the likelihood does so."""
    return x if LIKELIHOODS[modality.likelihood].bounded else nn.sigmoid(x)


# MARK: Images


class NexusImageEncoder(nn.Module):
    """Two 4x4 convolutions, each of which halves the map, and two dense layers."""

    modality: Modality
    options: NexusImageOptions

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        for channels in self.options.channels:
            x = nn.silu(nn.Conv(channels, (4, 4), (2, 2), use_bias=False)(x))
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.silu(nn.Dense(self.options.hidden)(x))
        return Heads(self.modality.latent_size)(x)


class NexusImageDecoder(nn.Module):
    """The mirror image of `NexusImageEncoder`."""

    modality: Modality
    options: NexusImageOptions

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        height, width, num_channels = self.modality.shape
        first, last = self.options.channels
        sides = height // 2**_HALVINGS, width // 2**_HALVINGS
        for units in (self.options.hidden, self.options.hidden, sides[0] * sides[1] * last):
            z = nn.silu(nn.Dense(units)(z))
        x = z.reshape(-1, *sides, last)
        x = nn.silu(nn.ConvTranspose(first, (4, 4), (2, 2), use_bias=False)(x))
        x = nn.ConvTranspose(num_channels, (4, 4), (2, 2), use_bias=False)(x)
        return _as_output(self.modality, x)


# MARK: Sounds


class NexusSoundEncoder(nn.Module):
    """A convolution over all bands of each frame, and two over four frames each, which halve the number of frames.

    The authors use batch norms; here they are group norms, which have no state to carry alongside the parameters.
    """

    modality: Modality
    options: NexusSoundOptions

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, frames, bands, 1] to (mean, log variance)."""
        first, *rest = self.options.channels
        x = nn.Conv(first, (1, x.shape[2]), padding="VALID", use_bias=False)(x)
        x = nn.relu(group_norm(first)(x))
        for channels in rest:
            x = nn.relu(group_norm(channels)(nn.Conv(channels, (4, 1), (2, 1), use_bias=False)(x)))
        return Heads(self.modality.latent_size)(x.reshape(x.shape[0], -1))


class NexusSoundDecoder(nn.Module):
    """The mirror image of `NexusSoundEncoder`, with a layer norm after the dense layer."""

    modality: Modality
    options: NexusSoundOptions

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, frames, bands, 1]."""
        frames, bands, num_channels = self.modality.shape
        first, second, third = self.options.channels
        frames //= 2**_HALVINGS
        x = nn.relu(nn.LayerNorm()(nn.Dense(frames * third)(z))).reshape(-1, frames, 1, third)
        for channels in (second, first):
            x = nn.ConvTranspose(channels, (4, 1), (2, 1), use_bias=False)(x)
            x = nn.relu(group_norm(channels)(x))
        x = nn.ConvTranspose(num_channels, (1, bands), padding="VALID", use_bias=False)(x)
        return _as_output(self.modality, x)


# MARK: Codecs


class _Nexus(FeedForward):
    """Base class of both codecs; checks that values are in [0, 1] and that sides can be halved twice."""

    halved: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        check_shape(self.modality)
        name, where = self.modality.codec.name, f"modality {self.modality.name!r} with the codec"
        sides = self.modality.shape[: self.halved]
        if any(side % 2**_HALVINGS for side in sides):
            raise SbmError(
                f"{where} {name!r} has the sides {sides}; expected multiples of {2**_HALVINGS}. Pad the data, or "
                "choose another codec."
            )
        if self.modality.bounds not in ((), (0.0, 1.0)):
            raise SbmError(
                f"{where} {name!r} has the bounds {self.modality.bounds}, but the decoder returns values from 0 to 1. "
                "Rescale the data, or choose another codec."
            )


@dataclasses.dataclass(frozen=True)
class NexusImage(_Nexus):
    """`NexusImageEncoder` and `NexusImageDecoder`, whose values are in (0, 1).

    Reference: M. Vasco, H. Yin, F. Melo and A. Paiva, "Leveraging Hierarchy in Multimodal Generative Models for
      Effective Cross-Modality Inference", 2022.
    """

    Options: ClassVar[type] = NexusImageOptions

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return NexusImageEncoder(self.modality, self.options)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return NexusImageDecoder(self.modality, self.options)


@dataclasses.dataclass(frozen=True)
class NexusSound(_Nexus):
    """`NexusSoundEncoder` and `NexusSoundDecoder`, for spectrograms [frames, bands, 1], whose values are in (0, 1).

    Reference: see `NexusImage`.
    """

    Options: ClassVar[type] = NexusSoundOptions
    halved: ClassVar[int] = 1

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return NexusSoundEncoder(self.modality, self.options)

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return NexusSoundDecoder(self.modality, self.options)
