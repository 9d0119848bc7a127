"""An image codec with Diff-MVAE's decoder: a diffusion decoder trained jointly with the encoder."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import build, checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.codecs.base import FeedForward, check_likelihood
from sbm_jax.networks.codecs.patch import Patch
from sbm_jax.networks.codecs.residual_conv import ResidualConv
from sbm_jax.networks.diffusion_decoder import Condition, DiffusionDecoder, bounds_of
from sbm_jax.networks.diffusion_decoder_config import DiffusionDecoderConfig, check_conditions
from sbm_jax.networks.images import check_shape
from sbm_jax.types import Array, CodecConfig, Key, Modality, Params

CONDITIONS = ("map", "latent")
"""Conditions of the decoder: a map learned from the latent, or the latent itself, which modulates all layers."""

TRUNKS: dict[str, type[FeedForward]] = {"patch": Patch, "residual_conv": ResidualConv}
"""Image codecs whose encoder and decoder can serve as the trunk."""

WIDTHS = {"patch": (64, 64), "residual_conv": (64, 128, 256)}
"""Default widths of each trunk."""


def check_network_only(codec: CodecConfig, where: str) -> None:
    """Raise `SbmError` if a codec used only for its network sets other options."""
    alone = CodecConfig(codec.name, codec.network)
    given = [f.name for f in dataclasses.fields(codec) if getattr(codec, f.name) != getattr(alone, f.name)]
    if given:
        raise SbmError(
            f"{where} sets {', '.join(given)}, but only its network is used. Leave out all but name and network."
        )


@checked_dataclass
class DiffusionCodecOptions:
    """Configures the networks and the sampler.

    Attributes:
      trunk: the feed-forward codec, a key of `TRUNKS`, whose encoder is used, and whose decoder turns the latent into a
        map.
      map_channels: channels of that map, which has the size of the image.
      condition: one or more of `CONDITIONS`. The papers use the latent alone, which needs far more training to be
        useful.
      decoder: see `DiffusionDecoderConfig`.
    """

    trunk: CodecConfig = CodecConfig("patch", {"widths": (64, 64)})
    map_channels: int = 8
    condition: tuple[str, ...] = ("map",)
    decoder: DiffusionDecoderConfig = DiffusionDecoderConfig()

    def __post_init__(self):
        if self.trunk.name not in TRUNKS:
            raise unknown("codec.network.trunk of a diffusion codec:", self.trunk.name, TRUNKS)
        check_network_only(self.trunk, "codec.network.trunk")
        require(self.map_channels >= 1, "codec.network.map_channels", self.map_channels, "at least 1")
        check_conditions(self.condition, CONDITIONS, "codec.network.condition")
        if self.decoder.sampler.start_time < 1:
            raise SbmError(
                "codec.network.decoder.sampler.start_time below 1 starts from the picture in the condition, and "
                "a diffusion codec has none. Set it to 1."
            )

    def training_settings(self) -> dict[str, Any]:
        """Return what training depends on; see `networks.codecs.training_settings`."""
        settings = {**plain(self), "condition": [kind for kind in CONDITIONS if kind in self.condition]}
        if "map" not in self.condition:
            del settings["map_channels"]
        return {**settings, "decoder": self.decoder.training_settings()}


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """An encoder, and a decoder that samples images by denoising. The raw output of `decode` is the latent itself.

    Attributes:
      modality: the modality to encode.
      options: see `DiffusionCodecOptions`.
    """

    Options: ClassVar[type] = DiffusionCodecOptions

    modality: Modality
    options: DiffusionCodecOptions

    def __post_init__(self):
        check_likelihood(self.modality)
        check_shape(self.modality)

    def _trunk(self, modality: Modality) -> FeedForward:
        trunk = self.options.trunk
        cls, where = TRUNKS[trunk.name], f"modality {modality.name!r}: codec.network.trunk.network"
        return cls(modality, build(cls.Options, {"widths": WIDTHS[trunk.name], **trunk.network}, where))

    @property
    def encoder(self) -> nn.Module:
        """The encoder module."""
        return self._plain.encoder

    @property
    def _plain(self) -> FeedForward:
        """The feed-forward codec that provides the encoder."""
        return self._trunk(dataclasses.replace(self.modality, likelihood="gaussian", scale=None))

    @property
    def decoder(self) -> DiffusionDecoder:
        """The diffusion decoder."""
        modality, options, trunk, size = self.modality, self.options, None, self.modality.latent_size
        if "map" in options.condition:
            shape = (*modality.shape[:2], options.map_channels)
            trunk = self._trunk(Modality(modality.name, shape, size)).decoder
        modulated = "latent" in options.condition
        return DiffusionDecoder(
            modality.shape, bounds_of(modality), options.decoder, latent_size=size, trunk=trunk, modulated=modulated
        )

    @property
    def is_guided(self) -> bool:
        """Whether guidance changes the distribution of samples."""
        return self.options.decoder.guidance > 0

    @property
    def evaluations(self) -> int:
        """Evaluations of the decoder's network per image."""
        return self.decoder.evaluations

    def init(self, key: Key) -> Params:
        """Initialise the parameters."""
        keys = jax.random.split(key)
        condition = Condition(latent=jnp.zeros((1, self.modality.latent_size)))
        return {"encoder": self._plain.init(keys[0])["encoder"], "decoder": self.decoder.init(keys[1], condition)}

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of data [B, H, W, C]."""
        return self._plain.encode(params, x)

    def decode(self, params: Params, z: Array) -> Array:
        """Return the latents [B, D_m] unchanged, because everything else depends on the noise."""
        del params
        return z

    def loss(self, params: Params, key: Key, x: Array, output: Array, train: bool = True) -> Array:
        """Return the training loss [B]; with weighting ``"likelihood"``, an upper bound on -log p(x | z), in nats."""
        return self.decoder.loss(params["decoder"], key, x, Condition(latent=output), train)

    def bound(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Bound -log p(x | z) [B] from above, in nats; with `likelihood_steps`, estimate its value instead."""
        condition, steps = Condition(latent=output), self.options.decoder.likelihood_steps
        if steps:
            return -self.decoder.log_likelihood(params["decoder"], key, x, condition, steps)
        return self.decoder.bound(params["decoder"], key, x, condition)

    def sample(self, params: Params, key: Key, output: Array, row_numbers: Array | None = None) -> Array:
        """Sample data [B, H, W, C]; NaN where the output is not finite."""
        condition, bounds = Condition(latent=output), bounds_of(self.modality)
        drawn = self.decoder.sample(params["decoder"], key, condition, row_numbers=row_numbers).z
        return jnp.clip(drawn, *bounds) if bounds else drawn
