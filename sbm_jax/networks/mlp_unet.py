"""The score network of MLD: a U-Net of dense layers, conditioned on each modality's time."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sbm_jax.networks.base import ScoreNetwork, dense, dense_of_latents
from sbm_jax.tokens import by_token
from sbm_jax.types import Array


def _group_norm(width: int) -> nn.GroupNorm:
    """Return a group norm of up to 32 groups with at least eight entries each."""
    return nn.GroupNorm(math.gcd(32, max(1, width // 8), width))


class _Block(nn.Module):
    """Two dense layers with norms, the times added between them, and a shortcut."""

    width: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, times: Array, train: bool) -> Array:
        hidden = dense(self.width, self.dtype)(nn.silu(_group_norm(x.shape[-1])(x)))
        hidden = hidden + dense(self.width, self.dtype)(nn.silu(times))
        hidden = nn.silu(_group_norm(self.width)(hidden))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        hidden = dense(self.width, self.dtype)(hidden)
        return hidden + (x if x.shape[-1] == self.width else dense(self.width, self.dtype)(x))


class MlpUNet(ScoreNetwork):
    """A U-Net of dense layers of equal width over the concatenated latents.

    The network learns which modalities are observed or absent only from their times [B, M], 0 and 1 respectively.

    Attributes:
      width: units per layer; the authors use 256 to 1536.
      depth: number of blocks on the way down, one less than on the way up; the authors use 2.
      dropout: rate in the blocks.
      dtype: type of the matrix products' operands.

    Reference: M. Bounoua, G. Franzese and P. Michiardi, "Multi-modal Latent Diffusion", 2024.
      https://arxiv.org/abs/2306.04445
    """

    width: int
    depth: int = 2
    dropout: float = 0.0
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
        """Return the network's output, float32 [B, N, D]; see `ScoreNetwork`."""
        del observed
        if present is not None:
            z, t = jnp.where(by_token(present, self.owner)[:, :, None], z, 0.0), jnp.where(present, t, 1.0)
        width = min(512, self.width)
        condition = t if embedding is None else jnp.concatenate([t, embedding], axis=-1)
        times = dense(width, self.dtype)(jax.nn.gelu(dense(width, self.dtype)(condition)))
        x = dense_of_latents(self.width, z.shape[1:], self.sizes, self.dtype)(z.reshape(len(z), -1))

        def block(x: Array) -> Array:
            return _Block(self.width, self.dropout, self.dtype)(x, times, train)

        skips = [x]
        for _ in range(self.depth):
            skips.append(block(skips[-1]))
        x = block(skips[-1])
        while skips:
            x = block(jnp.concatenate([x, skips.pop()], axis=-1))
        x = nn.silu(_group_norm(self.width)(x))
        return nn.Dense(z.shape[1] * z.shape[2], kernel_init=nn.initializers.zeros)(x).reshape(z.shape)
