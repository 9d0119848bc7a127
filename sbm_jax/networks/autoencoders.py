"""Encoders and decoders per kind of modality, and the pure functions over all modalities at once.

An encoder maps [B, *shape] to (mean, log variance), each [B, D_m]; a decoder maps [B, D_m] to the raw output of the
likelihood. Normalisation is GroupNorm, so that no batch statistics travel with the parameters (the authors use
BatchNorm).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.per_modality import PerModality
from sbm_jax.types import Array, Key, Modality, Params


@checked_dataclass
class AutoencoderNetworkConfig:
    """Sizes of the encoders and decoders.

    Attributes:
      widths: channels before each halving of the map (residual_conv), of each residual convolution, all equal (patch),
        or units of each hidden layer (mlp).
      dtype: type of the convolutions' operands, ``"float32"`` or ``"bfloat16"``; parameters, norms and the decoders'
        last layers stay float32: near 1, bfloat16 can not tell neighbouring grey levels apart.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    dtype: str = "float32"

    def __post_init__(self):
        positive = bool(self.widths) and min(self.widths) >= 1
        require(positive, "autoencoder.network.widths", self.widths, "one or more positive sizes")
        known = self.dtype in ("float32", "bfloat16")
        require(known, "autoencoder.network.dtype", self.dtype, "'float32' or 'bfloat16'")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=int(np.gcd(8, channels)), epsilon=1e-5, dtype=jnp.float32)


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
        hidden = _leaky(_norm(self.features)(conv((3, 3))(x)))
        hidden = _norm(self.features)(conv((3, 3))(hidden))
        if x.shape[-1] != self.features:
            x = conv((1, 1))(x)
        return _leaky(x + hidden)


class Heads(nn.Module):
    """Mean and log variance of the posterior from a flat feature vector."""

    latent_size: int

    @nn.compact
    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Map [B, F] to two arrays [B, D_m]; log variances are kept in [-12, 6]."""
        features = features.astype(jnp.float32)
        log_variance = nn.Dense(self.latent_size, kernel_init=nn.initializers.normal(1e-3))(features)
        return nn.Dense(self.latent_size)(features), jnp.clip(log_variance, -12.0, 6.0)


def _padded_side(shape: tuple[int, ...], num_halvings: int) -> tuple[int, int]:
    factor = 2**num_halvings
    return tuple(-(-side // factor) * factor for side in shape[:2])


def _pad(x: Array, num_halvings: int) -> Array:
    sides = _padded_side(x.shape[1:], num_halvings)
    before = [(side - size) // 2 for side, size in zip(sides, x.shape[1:3], strict=True)]
    pads = [(low, side - size - low) for low, side, size in zip(before, sides, x.shape[1:3], strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _crop(x: Array, shape: tuple[int, ...]) -> Array:
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], shape[:2], strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]


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
        x = _pad(x, len(self.widths) + 1)
        x = nn.Conv(self.widths[0], (5, 5), use_bias=False, dtype=self.dtype)(x)
        x = _pool(_leaky(_norm(self.widths[0])(x)))
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
        height, width = (side // 2 ** len(self.widths) for side in _padded_side(shape, len(self.widths) + 1))
        x = nn.relu(nn.Dense(height * width * self.widths[-1])(z))
        x = x.reshape(-1, height, width, self.widths[-1])
        for features in reversed(self.widths):
            x = _upsample(ResidualBlock(features, self.dtype)(x))
        x = ResidualBlock(self.widths[0], self.dtype)(x)
        return _crop(nn.Conv(shape[-1], (5, 5), dtype=jnp.float32)(x), shape)


PATCH = 4
"""Pixels along a side of the patches that the ``patch`` kind turns into channels."""

SQUEEZE = 16
"""Channels of its maps where they meet the dense layers, which would have most of its parameters otherwise."""


class PatchConvolution(nn.Module):
    """x + act(norm(conv 3x3)): the residual block of the ``patch`` kind."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, features] to the same shape."""
        return x + nn.silu(_norm(self.features)(nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)))


class PatchEncoder(nn.Module):
    """A small encoder for CPUs, where wide convolutions on small maps are fast and narrow ones on large maps are not.

    Patches of 4x4 pixels become channels; one residual convolution for each width, all equal, then a dense layer.
    """

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        x = _pad(x, 2)
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
        height, width = (side // PATCH for side in _padded_side(shape, 2))
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(z))
        x = nn.Dense(height * width * SQUEEZE, dtype=self.dtype)(x).reshape(-1, height, width, SQUEEZE)
        x = nn.silu(nn.Dense(self.widths[-1], dtype=self.dtype)(x))
        for features in reversed(self.widths):
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Conv(PATCH * PATCH * shape[-1], (3, 3), dtype=jnp.float32)(x)
        x = x.reshape(-1, height, width, PATCH, PATCH, shape[-1]).transpose(0, 1, 3, 2, 4, 5)
        return _crop(x.reshape(-1, PATCH * height, PATCH * width, shape[-1]), shape)


class MLPEncoder(nn.Module):
    """Dense layers over flattened data, for vectors such as attributes."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, *shape] to (mean, log variance)."""
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.silu(nn.LayerNorm()(nn.Dense(width, dtype=self.dtype)(x)))
        return Heads(self.modality.latent_size)(x)


class MLPDecoder(nn.Module):
    """Dense layers back to data."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, *shape]."""
        for width in reversed(self.widths):
            z = nn.silu(nn.LayerNorm()(nn.Dense(width, dtype=self.dtype)(z)))
        output = nn.Dense(int(np.prod(self.modality.shape)))(z)
        return output.reshape(-1, *self.modality.shape)


KINDS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "residual_conv": (ResidualConvEncoder, ResidualConvDecoder),
    "patch": (PatchEncoder, PatchDecoder),
    "mlp": (MLPEncoder, MLPDecoder),
}


def make_encoder(modality: Modality, config: AutoencoderNetworkConfig) -> nn.Module:
    """Return the encoder of a modality: [B, *shape] -> (mean, log variance) [B, D_m]."""
    return _module(modality, config, 0)


def make_decoder(modality: Modality, config: AutoencoderNetworkConfig) -> nn.Module:
    """Return the decoder of a modality: [B, D_m] -> raw output [B, *shape]."""
    return _module(modality, config, 1)


def _module(modality: Modality, config: AutoencoderNetworkConfig, part: int) -> nn.Module:
    return KINDS[modality.kind][part](modality, config.widths, jnp.dtype(config.dtype))


def check_modality(modality: Modality, config: AutoencoderNetworkConfig) -> None:
    """Raise `SbmError` for a modality that can not be encoded and decoded with these sizes."""
    if modality.kind not in KINDS:
        raise unknown(f"kind of modality {modality.name!r}:", modality.kind, KINDS)
    if modality.likelihood not in LIKELIHOODS:
        raise unknown(f"likelihood of modality {modality.name!r}:", modality.likelihood, LIKELIHOODS)
    bounded = LIKELIHOODS[modality.likelihood].bounded
    if bounded and modality.bounds and not 0 <= modality.bounds[0] < modality.bounds[1] <= 1:
        raise SbmError(
            f"modality {modality.name!r}: bounds {modality.bounds} leave [0, 1], the range of the "
            f"{modality.likelihood} likelihood. Leave them out, or choose another likelihood."
        )
    if modality.kind == "patch" and len(set(config.widths)) != 1:
        raise SbmError(f"config.autoencoder.network.widths must be equal for kind 'patch': {config.widths}.")
    if modality.kind != "mlp" and len(modality.shape) != 3:
        raise SbmError(
            f"modality {modality.name!r} of kind {modality.kind!r} needs the shape (height, width, channels), "
            f"not {modality.shape}; use kind 'mlp' for vectors."
        )


@dataclasses.dataclass(frozen=True)
class Autoencoders:
    """The autoencoders of all modalities as pure functions.

    Attributes:
      modalities: the modalities.
      config: sizes.
      batched: see `PerModality`.
    """

    modalities: tuple[Modality, ...]
    config: AutoencoderNetworkConfig
    batched: bool

    def __post_init__(self):
        for modality in self.modalities:
            check_modality(modality, self.config)

    @property
    def per_modality(self) -> PerModality:
        """How parameters are stacked."""
        return PerModality(self.modalities, self.batched)

    def init(self, key: Key) -> Params:
        """Return {group: {"encoder": ..., "decoder": ...}}, each leaf stacked over the group's modalities."""

        def init_one(modality: Modality, key: Key) -> Params:
            keys = jax.random.split(key)
            x, z = jnp.zeros((1, *modality.shape)), jnp.zeros((1, modality.latent_size))
            return {
                "encoder": make_encoder(modality, self.config).init(keys[0], x)["params"],
                "decoder": make_decoder(modality, self.config).init(keys[1], z)["params"],
            }

        return self.per_modality.init(key, init_one)

    def encode(self, params: Params, data: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Return {name: (mean [B, D_m], log variance [B, D_m])} for the modalities in `data` (float, [B, *shape])."""

        def encode(modality: Modality, weights: Params, x: Array) -> tuple[Array, Array]:
            return make_encoder(modality, self.config).apply({"params": weights["encoder"]}, x)

        return self.per_modality.apply(params, data, encode)

    def decode(self, params: Params, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: raw decoder output [B, *shape]} for the modalities in `latents`."""

        def decode(modality: Modality, weights: Params, z: Array) -> Array:
            return make_decoder(modality, self.config).apply({"params": weights["decoder"]}, z)

        return self.per_modality.apply(params, latents, decode)

    def decode_mean(self, params: Params, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: expected data [B, *shape]} for the modalities in `latents`."""
        return self.expected(self.decode(params, latents))

    def expected(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: expected data [B, *shape]} inside the modality's bounds, given the decoders' raw outputs."""

        def expected(modality: Modality, output: Array) -> Array:
            mean = LIKELIHOODS[modality.likelihood].mean(output)
            return jnp.clip(mean, *modality.bounds) if modality.bounds else mean

        modalities = {modality.name: modality for modality in self.modalities}
        return {name: expected(modalities[name], output) for name, output in outputs.items()}
