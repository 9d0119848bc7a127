"""A residual MLP score network."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from sbm_jax.networks.base import ScoreNetwork, dense, dense_of_latents, fourier_features, modulated_norm
from sbm_jax.tokens import by_token
from sbm_jax.types import Array


class ResidualMLP(ScoreNetwork):
    """A residual MLP over the concatenated latents, modulated by all times and the observed and present masks.

    Attributes:
      width: units per layer.
      depth: number of residual blocks.
      dropout: rate in the residual branches.
      dtype: type of the matrix products' operands.
    """

    width: int
    depth: int
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
        batch = z.shape[0]
        present = jnp.ones_like(observed) if present is None else present
        z = jnp.where(by_token(present, self.owner)[:, :, None], z, 0.0)
        condition = [fourier_features(t, 32).reshape(batch, -1), *(x.astype(jnp.float32) for x in (observed, present))]
        condition += [] if embedding is None else [embedding]
        condition = nn.silu(dense(128, self.dtype)(jnp.concatenate(condition, axis=-1)))
        x = dense_of_latents(self.width, z.shape[1:], self.sizes, self.dtype)(z.reshape(batch, -1))
        for _ in range(self.depth):
            hidden = modulated_norm(x, dense(2 * self.width, self.dtype)(condition))
            hidden = nn.silu(dense(self.width, self.dtype)(hidden))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            x = x + dense(self.width, self.dtype, kernel_init=nn.initializers.zeros)(hidden)
        output = nn.Dense(z.shape[1] * z.shape[2], kernel_init=nn.initializers.zeros)(nn.LayerNorm()(x))
        return output.reshape(z.shape)
