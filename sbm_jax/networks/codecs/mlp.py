"""A codec of dense layers over flattened data, for vectors such as attributes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from sbm_jax.networks.codecs.base import FeedForward, Heads
from sbm_jax.types import Array, Modality


class MLPEncoder(nn.Module):
    """Dense layers over flattened data."""

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
    """Dense layers from latents to data."""

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


@dataclasses.dataclass(frozen=True)
class MLP(FeedForward):
    """`MLPEncoder` and `MLPDecoder`; `widths` are the units of each hidden layer."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return MLPEncoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))

    @property
    def decoder(self) -> nn.Module:
        """The decoder's module."""
        return MLPDecoder(self.modality, self.options.widths, jnp.dtype(self.options.dtype))
