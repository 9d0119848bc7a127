"""The paper's score network: a UNet over latents laid out as small images, with modalities as channels."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sbm_jax.errors import SbmError
from sbm_jax.networks.base import ScoreNetwork
from sbm_jax.networks.convolutions import Conv, Window, uniform_init
from sbm_jax.tokens import Owner, by_token
from sbm_jax.types import Array

_GELU = functools.partial(nn.gelu, approximate=False)  # the tanh form differs by up to 5e-4


def map_shape(num_tokens: int, size: int, owner: Owner, num_levels: int) -> tuple[int, int, int]:
    """Return (M, side, C), the layout of latents [N, D] as one square map with C channels per modality.

    A modality with one token becomes a map of its D entries, and one with several a map of its tokens, with D channels.

    Args:
      num_tokens: N.
      size: D.
      owner: the modality of each token; () for one token each.
      num_levels: number of resolutions of the UNet, with a halving between levels.

    Raises:
      SbmError: if modalities have different numbers of tokens, or these do not form a square map whose side can be
        halved often enough.
    """
    unit = 2 ** (num_levels - 1)
    counts = np.bincount(owner or range(num_tokens))
    if counts.min() != counts.max():
        raise SbmError(
            f"the UNet needs maps of one size for all modalities, but these have {counts.tolist()} tokens. Give all "
            "modalities the same num_tokens and latent_size, or choose another score network."
        )
    what, cells, channels = ("size", size, 1) if counts[0] == 1 else ("num_tokens", int(counts[0]), size)
    side = math.isqrt(cells)
    if cells < 1 or side**2 != cells or side % unit:
        raise SbmError(
            f"the UNet cannot lay out latents of {what} {cells} as a square map: with {num_levels} levels, it must be "
            f"the square of a multiple of {unit} ({unit**2}, {4 * unit**2}, {9 * unit**2}, ...). Change latent_size or "
            "num_tokens, give the UNet fewer multipliers, or choose another score network."
        )
    return len(counts), side, channels


def sinusoidal_embedding(t: Array, dim: int) -> Array:
    """Return [sin(t·ω), cos(t·ω)] with ω_i = 10000^(−i / (dim/2 − 1)).

    Args:
      t: times [B], already scaled.
      dim: size of the embedding, even and at least 4.

    Returns:
      [B, dim].
    """
    half = dim // 2
    frequencies = jnp.exp(-math.log(10000.0) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _linear(x: Array, features: int, dtype: DTypeLike) -> Array:
    init = uniform_init(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init)(x)


def _group_norm(x: Array, dtype: DTypeLike) -> Array:
    return nn.GroupNorm(num_groups=1, epsilon=1e-5, dtype=dtype)(x)


class ConvNeXtBlock(nn.Module):
    """A residual ConvNeXt block: a depthwise 7x7 convolution, shifted by the condition, then two 3x3 convolutions.

    Attributes:
      features: channels of the result; the hidden layer has twice as many.
      mode: algorithm of the convolutions; see `convolutions.select_form`.
      dtype: type of the activations.
    """

    features: int
    mode: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Map [B, h, w, C] to [B, h, w, features], given a condition [B, E] or None."""
        conv = functools.partial(Conv, mode=self.mode, dtype=self.dtype)
        y = conv(x.shape[-1], Window(7), depthwise=True)(x)
        if condition is not None:
            y = y + _linear(_GELU(condition), x.shape[-1], self.dtype)[:, None, None]
        y = _group_norm(y, self.dtype)
        y = _GELU(conv(2 * self.features, Window(3))(y))
        y = _group_norm(y, self.dtype)
        y = conv(self.features, Window(3))(y)
        shortcut = x if x.shape[-1] == self.features else conv(self.features, Window(1))(x)
        return y + shortcut


class Attention(nn.Module):
    """Residual self-attention between the positions of a map, after a group norm.

    The linear form is softmax(q) (softmax(k)ᵀ v), with q normalised over features and k over positions. Its cost is
    linear in the number of positions.

    Attributes:
      num_heads: number of heads.
      head_dim: features per head.
      linear: whether to use the linear form, followed by another norm, instead of softmax(q kᵀ) v.
      mode: algorithm of the 1x1 convolutions; see `convolutions.select_form`.
      dtype: type of the activations; softmaxes are float32.
    """

    num_heads: int
    head_dim: int
    linear: bool
    mode: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, h, w, C] to the same shape."""
        batch, height, width, channels = x.shape
        conv = functools.partial(Conv, window=Window(1), mode=self.mode, dtype=self.dtype)
        hidden = self.num_heads * self.head_dim
        y = conv(3 * hidden, use_bias=False)(_group_norm(x, self.dtype))
        y = y.reshape(batch, height * width, 3, self.num_heads, self.head_dim)
        attend = _linear_attention if self.linear else _softmax_attention
        y = attend(y[:, :, 0], y[:, :, 1], y[:, :, 2]).astype(self.dtype)
        y = conv(channels)(y.reshape(batch, height, width, hidden))
        if self.linear:
            y = _group_norm(y, self.dtype)
        return x + y


def _linear_attention(query: Array, key: Array, value: Array) -> Array:
    """Attend in the linear form; all arrays [B, positions, heads, features]."""
    query = jax.nn.softmax(query.astype(jnp.float32), axis=3) * query.shape[3] ** -0.5
    key = jax.nn.softmax(key.astype(jnp.float32), axis=1)
    context = jnp.einsum("bphd,bphe->bhde", key, value.astype(jnp.float32))
    return jnp.einsum("bhde,bphd->bphe", context, query)


def _softmax_attention(query: Array, key: Array, value: Array) -> Array:
    """Attend with softmax(q kᵀ/√features) v; all arrays [B, positions, heads, features]."""
    logits = jnp.einsum("bphd,bqhd->bhpq", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[3] ** -0.5, axis=3)
    return jnp.einsum("bhpq,bqhd->bphd", weights, value.astype(jnp.float32))


class UNet(ScoreNetwork):
    """The paper's score network, over latents as square maps with modalities as channels.

    The paper reshapes each latent vector (one token) to a map with h·w = D. Its entries have no neighbourhood structure
    for convolutions to exploit, so this layout is meant for comparison. Spatial latents, of h·w tokens each, become
    maps with D channels. In both, padding is part of the map. The network receives one diffusion time, the latest of a
    row's modalities, and constant channels that mark which of them are clean.

    Attributes:
      dim: base width, even and at least 4.
      multipliers: width of each level as a multiple of `dim`; the map is halved between levels.
      num_heads: number of attention heads.
      head_dim: features per head.
      mask_channels: whether to add a constant channel per modality: 1 if observed, 0 if to be generated, -1 if absent.
        The paper's own network has none.
      time_scale: factor on times before their embedding. The authors' code embeds raw times in [0, 1] (1.0), which
        most of the frequencies cannot resolve.
      conv_mode: algorithm of the convolutions, ``"auto"``, ``"conv"`` or ``"matmul"``; see `convolutions.select_form`.
        Parameters do not depend on it.
      dtype: type of the activations; parameters and the result are float32.

    Reference:
      Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, with the blocks of Liu et al., "A
      ConvNet for the 2020s", 2022, and the linear attention of Shen et al., "Efficient Attention", 2021.
    """

    dim: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_heads: int = 4
    head_dim: int = 32
    mask_channels: bool = True
    time_scale: float = 1000.0
    conv_mode: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        z: Array,
        t: Array,
        observed: Array,
        present: Array | None = None,
        embedding: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        """Return the network's output [B, N, D], float32.

        Args:
          z: diffused latents [B, N, D].
          t: each modality's diffusion time [B, M], in [0, 1]; 0 where clean.
          observed: bool [B, M], True = given.
          present: bool [B, M] or None (all); latents of absent modalities are ignored.
          embedding: [B, E] or None, added to the time embedding through a small MLP.
          train: ignored, as there is no dropout.

        Raises:
          SbmError: if latents do not form square maps of one size, or `dim` is odd or less than 4.
        """
        del train
        num_modalities, side, channels = map_shape(*z.shape[1:], self.owner, len(self.multipliers))
        if present is not None:
            z = jnp.where(by_token(present, self.owner)[:, :, None], z, 0.0)
            t = jnp.where(present, t, 0.0)
        shape = len(z), side, side, num_modalities, channels
        maps = z.reshape(len(z), num_modalities, side, side, channels).transpose(0, 2, 3, 1, 4).reshape(*shape[:3], -1)
        if self.mask_channels:
            maps = jnp.concatenate([maps, _mask_maps(observed, present, side)], axis=-1)
        y = self._levels(maps.astype(self.dtype), self._condition(t.max(axis=1), embedding))
        y = Conv(num_modalities * channels, Window(1), mode=self.conv_mode)(y.astype(jnp.float32))
        return y.reshape(shape).transpose(0, 3, 1, 2, 4).reshape(z.shape)

    def _condition(self, t: Array, embedding: Array | None) -> Array:
        """Embed times [B] and, if given, the embedding of the observed data as [B, 4·dim]."""
        if self.dim < 4 or self.dim % 2:
            raise SbmError(f"the UNet's dim must be even and at least 4, not {self.dim}.")
        width = 4 * self.dim
        hidden = _GELU(_linear(sinusoidal_embedding(self.time_scale * t, self.dim), width, self.dtype))
        condition = _linear(hidden, width, self.dtype)
        if embedding is not None:
            hidden = nn.silu(_linear(embedding, width, self.dtype))
            condition = condition + _linear(hidden, width, self.dtype)
        return condition

    def _levels(self, maps: Array, condition: Array) -> Array:
        """Compute features [B, h, w, C] of the input maps, down the levels and back up with skip connections."""
        conv = functools.partial(Conv, mode=self.conv_mode, dtype=self.dtype)
        block = functools.partial(ConvNeXtBlock, mode=self.conv_mode, dtype=self.dtype)
        attention = functools.partial(Attention, self.num_heads, self.head_dim, mode=self.conv_mode, dtype=self.dtype)
        widths = [self.dim * multiplier for multiplier in self.multipliers]

        y = conv(self.dim // 3 * 2, Window(7))(maps)
        skips = []
        for level, width in enumerate(widths):
            if level > 0:
                y = conv(y.shape[-1], Window(4, stride=2))(y)
            y = block(width)(y, condition)
            y = block(width)(y, condition)
            y = attention(linear=True)(y)
            skips.append(y)

        y = block(widths[-1])(y, condition)
        y = attention(linear=False)(y)
        y = block(widths[-1])(y, condition)

        # The first level's skip is not used: the authors' network never reads it.
        for width, skip in zip(reversed(widths[:-1]), reversed(skips[1:]), strict=True):
            y = jnp.concatenate([y, skip], axis=-1)
            y = block(width)(y, condition)
            y = block(width)(y, condition)
            y = attention(linear=True)(y)
            y = conv(width, Window(4, dilation=2))(y)
        return block(widths[0])(y)


def _mask_maps(observed: Array, present: Array | None, side: int) -> Array:
    """Return constant channels [B, side, side, M]: 1 if observed, 0 if to be generated, -1 if absent."""
    mask = observed.astype(jnp.float32)
    if present is not None:
        mask = jnp.where(present, mask, -1.0)
    return jnp.broadcast_to(mask[:, None, None], (mask.shape[0], side, side, mask.shape[1]))
