"""The score networks in PyTorch, for comparison: the same layers, evaluated with the same weights.

The UNet is written as its authors and PyTorch users would write it: NCHW maps, `nn.Conv2d`, `nn.GroupNorm`. Layers of
one kind are in one list, in the order in which the Flax module creates them, so that `counterpart` finds their weights
by name.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sbm_jax.errors import SbmError
from sbm_jax.networks import transformer, unet

# MARK: The UNet


class ConvNeXtBlock(nn.Module):
    """See `sbm_jax.networks.unet.ConvNeXtBlock`."""

    def __init__(self, channels: int, features: int, condition_size: int | None):
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
                nn.Conv2d(channels, 2 * features, 3, padding=1),
                nn.Conv2d(2 * features, features, 3, padding=1),
            ]
        )
        if channels != features:
            self.convs.append(nn.Conv2d(channels, features, 1))
        self.norms = nn.ModuleList([nn.GroupNorm(1, channels), nn.GroupNorm(1, 2 * features)])
        self.linears = nn.ModuleList([] if condition_size is None else [nn.Linear(condition_size, channels)])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return [B, features, h, w] for maps [B, C, h, w] and a condition [B, E]."""
        depthwise, widen, narrow, *shortcut = self.convs
        y = depthwise(x)
        if condition is not None:
            y = y + self.linears[0](functional.gelu(condition))[:, :, None, None]
        y = functional.gelu(widen(self.norms[0](y)))
        y = narrow(self.norms[1](y))
        return y + (shortcut[0](x) if shortcut else x)


class Attention(nn.Module):
    """See `sbm_jax.networks.unet.Attention`."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, linear: bool):
        super().__init__()
        self.num_heads, self.head_dim, self.linear = num_heads, head_dim, linear
        hidden = num_heads * head_dim
        self.convs = nn.ModuleList([nn.Conv2d(channels, 3 * hidden, 1, bias=False), nn.Conv2d(hidden, channels, 1)])
        self.norms = nn.ModuleList([nn.GroupNorm(1, channels) for _ in range(2 if linear else 1)])

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the shape of `x` [B, C, h, w]."""
        batch, _, height, width = x.shape
        qkv = self.convs[0](self.norms[0](x)).reshape(batch, 3, self.num_heads, self.head_dim, height * width)
        query, key, value = qkv.unbind(1)  # [B, heads, features, positions]
        if self.linear:
            context = key.softmax(dim=-1) @ value.transpose(-1, -2)
            attended = context.transpose(-1, -2) @ (query.softmax(dim=-2) * self.head_dim**-0.5)
        else:
            weights = (query.transpose(-1, -2) @ key * self.head_dim**-0.5).softmax(dim=-1)
            attended = value @ weights.transpose(-1, -2)
        y = self.convs[1](attended.reshape(batch, -1, height, width))
        return x + (self.norms[1](y) if self.linear else y)


class UNet(nn.Module):
    """See `sbm_jax.networks.unet.UNet`."""

    def __init__(self, network: unet.UNet, num_modalities: int, latent_size: int):
        """Build the counterpart of a Flax module, with new weights."""
        super().__init__()
        self.dim, self.time_scale, self.mask_channels = network.dim, network.time_scale, network.mask_channels
        self.num_levels = len(network.multipliers)
        _, self.side, _ = unet.map_shape(num_modalities, latent_size, (), self.num_levels)
        widths = [network.dim * multiplier for multiplier in network.multipliers]
        condition_size, first = 4 * network.dim, network.dim // 3 * 2
        convs = [nn.Conv2d(num_modalities * (2 if network.mask_channels else 1), first, 7, padding=3)]
        blocks, attentions = [], []

        def add_blocks(channels: int, features: int, linear: bool = True) -> None:
            blocks.append(ConvNeXtBlock(channels, features, condition_size))
            blocks.append(ConvNeXtBlock(features, features, condition_size))
            attentions.append(Attention(features, network.num_heads, network.head_dim, linear))

        for before, width in zip([first, *widths], widths, strict=False):
            if blocks:
                convs.append(nn.Conv2d(before, before, 4, stride=2, padding=1))
            add_blocks(before, width)
        add_blocks(widths[-1], widths[-1], linear=False)
        before = widths[-1]
        for width, skip in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            add_blocks(before + skip, width)
            convs.append(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1))
            before = width
        blocks.append(ConvNeXtBlock(before, widths[0], None))
        convs.append(nn.Conv2d(widths[0], num_modalities, 1))
        self.convs, self.convnexts, self.attentions = map(nn.ModuleList, (convs, blocks, attentions))
        self.linears = nn.ModuleList(
            [nn.Linear(network.dim, condition_size), nn.Linear(condition_size, condition_size)]
        )

    def forward(self, z: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        """Return the raw prediction [B, M, D] for latents [B, M, D], times [B] and observed sets [B, M]."""
        maps = z.reshape(*z.shape[:2], self.side, self.side)
        if self.mask_channels:
            mask = observed.to(z.dtype)[:, :, None, None].expand_as(maps)
            maps = torch.cat([maps, mask], dim=1)
        condition = self._condition(t)
        convs, blocks, attentions = iter(self.convs), iter(self.convnexts), iter(self.attentions)

        def stage(y: Tensor) -> Tensor:
            y = next(blocks)(y, condition)
            y = next(blocks)(y, condition)
            return next(attentions)(y)

        skips = [stage(next(convs)(maps))]
        for _ in range(self.num_levels - 1):
            skips.append(stage(next(convs)(skips[-1])))
        y = next(attentions)(next(blocks)(skips[-1], condition))
        y = next(blocks)(y, condition)
        for skip in reversed(skips[1:]):
            y = next(convs)(stage(torch.cat([y, skip], dim=1)))
        return next(convs)(next(blocks)(y)).reshape(z.shape)

    def _condition(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        frequencies = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half, device=t.device))
        angles = self.time_scale * t[:, None] * frequencies[None]
        embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.linears[1](functional.gelu(self.linears[0](embedding)))


# MARK: The transformer


def _modulated_norm(x: Tensor, modulation: Tensor) -> Tensor:
    scale, shift = modulation.chunk(2, dim=-1)
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """See `sbm_jax.networks.transformer.Block`."""

    def __init__(self, width: int, head_size: int):
        super().__init__()
        self.head_size = head_size
        self.attention_norm = nn.Linear(transformer.CONDITION, 2 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width)
        self.hidden_norm = nn.Linear(transformer.CONDITION, 2 * width)
        self.hidden = nn.Linear(width, 4 * width)
        self.hidden_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the tokens [B, M, width] after the block, with full attention."""
        qkv = self.qkv(_modulated_norm(x, self.attention_norm(condition)))
        query, key, value = qkv.reshape(*x.shape[:2], 3, -1, self.head_size).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(attended.transpose(1, 2).reshape(x.shape))
        hidden = functional.gelu(self.hidden(_modulated_norm(x, self.hidden_norm(condition))), approximate="tanh")
        return x + self.hidden_out(hidden)


class IntoTokens(nn.Module):
    """See `sbm_jax.networks.transformer.IntoTokens`."""

    def __init__(self, num_modalities: int, size: int, width: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(num_modalities, size, width))
        self.identity = nn.Parameter(torch.zeros(num_modalities, width))

    def forward(self, z: Tensor) -> Tensor:
        """Map latents [B, M, D] to tokens [B, M, width]."""
        return torch.einsum("bmd,mdw->bmw", z, self.kernel) + self.identity


class OutOfTokens(nn.Module):
    """See `sbm_jax.networks.transformer.OutOfTokens`."""

    def __init__(self, num_modalities: int, width: int, size: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(num_modalities, width, size))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, M, width] to [B, M, D]."""
        return torch.einsum("bmw,mwd->bmd", x, self.kernel)


class TokenTransformer(nn.Module):
    """See `sbm_jax.networks.transformer.TokenTransformer`; nothing is observed."""

    def __init__(self, network: transformer.TokenTransformer, num_modalities: int, latent_size: int):
        """Build the counterpart of a Flax module, with new weights."""
        super().__init__()
        self.into_tokens = IntoTokens(num_modalities, latent_size, network.width)
        self.out_of_tokens = OutOfTokens(num_modalities, network.width, latent_size)
        self.condition_layers = nn.ModuleList(
            [nn.Linear(size, transformer.CONDITION) for size in (33, transformer.CONDITION)]
        )
        self.blocks = nn.ModuleList([Block(network.width, network.head_size) for _ in range(network.depth)])
        self.final_norm = nn.Linear(transformer.CONDITION, 2 * network.width)

    def forward(self, z: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        """Return the raw prediction [B, M, D] for latents [B, M, D] and times [B]; `observed` is ignored."""
        del observed
        frequencies = torch.logspace(-2, 6, 16, base=2.0, device=t.device)
        angles = 2 * math.pi * t[:, None] * frequencies[None]
        condition = torch.cat([angles.sin(), angles.cos(), torch.zeros_like(t)[:, None]], dim=-1)[:, None]
        for layer in self.condition_layers:
            condition = functional.silu(layer(condition))
        x = self.into_tokens(z)
        for block in self.blocks:
            x = block(x, condition)
        return self.out_of_tokens(_modulated_norm(x, self.final_norm(condition)))


# MARK: Weights

_KINDS = {"convs": "Conv", "norms": "GroupNorm", "linears": "Dense", "convnexts": "ConvNeXtBlock"}
_KINDS |= {"attentions": "Attention"}
_COUNTERPARTS: dict[type, Callable[..., nn.Module]] = {
    unet.UNet: UNet,
    transformer.TokenTransformer: TokenTransformer,
}


def counterpart(network: Any, params: Mapping[str, Any], num_modalities: int, latent_size: int) -> nn.Module:
    """Return the PyTorch counterpart of a Flax score network, with the same weights and in evaluation mode.

    Args:
      network: a `UNet` or `TokenTransformer`.
      params: the network's parameters.
      num_modalities: M.
      latent_size: D.

    Raises:
      SbmError: if the network has no counterpart here.
      ValueError: if a parameter has none.
    """
    if type(network) not in _COUNTERPARTS:
        known = ", ".join(kind.__name__ for kind in _COUNTERPARTS)
        raise SbmError(f"{type(network).__name__} has no PyTorch version here; compare one of {known}.")
    module = _COUNTERPARTS[type(network)](network, num_modalities, latent_size)
    values = flax.traverse_util.flatten_dict(params, sep="/")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            layer = module.get_submodule(name.rpartition(".")[0])
            parameter.copy_(torch.from_numpy(_layout(layer, np.array(values.pop(_flax_path(name, layer))))))
    if values:
        raise ValueError(f"parameters without a counterpart: {sorted(values)}")
    return module.eval()


def _flax_path(name: str, layer: nn.Module) -> str:
    """Return a parameter's path in the Flax tree: ``convs.2.weight`` is ``Conv_2/kernel``."""
    path = re.sub(r"(\w+)\.(\d+)", lambda match: f"{_KINDS.get(match[1], match[1])}_{match[2]}", name)
    return path.replace(".", "/").replace("weight", "scale" if isinstance(layer, nn.GroupNorm) else "kernel")


def _layout(layer: nn.Module, value: np.ndarray) -> np.ndarray:
    """Convert a Flax parameter to the layout of a PyTorch layer."""
    if value.ndim == 4 and isinstance(layer, nn.ConvTranspose2d):
        return np.flip(value, (0, 1)).transpose(2, 3, 0, 1).copy()
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if isinstance(layer, nn.Linear) else value
