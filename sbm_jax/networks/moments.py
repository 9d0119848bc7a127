"""Splits time series into moments of equal length, and convolves over them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.types import Array


def num_moments(length: int, frames: int) -> int:
    """Return the number of moments of `frames` frames that cover `length` frames; the last one may be padded."""
    return -(-length // frames)


def to_moments(x: Array, frames: int) -> Array:
    """Split [B, T, ...] into [B, moments, frames, ...], with zero padding at the end."""
    batch, length, *rest = x.shape
    moments = num_moments(length, frames)
    filled = [(0, 0), (0, moments * frames - length), *[(0, 0)] * len(rest)]
    return jnp.pad(x, filled).reshape(batch, moments, frames, *rest)


def from_moments(x: Array, length: int) -> Array:
    """Undo `to_moments`: return [B, length, ...]."""
    batch, moments, frames, *rest = x.shape
    return x.reshape(batch, moments * frames, *rest)[:, :length]


def with_neighbours(x: Array, reach: int) -> Array:
    """Concatenate each of T moments [B, T, ..., F] with `reach` zero-padded neighbours on each side of it.

    Returns:
      [B, T, ..., (2 reach + 1) F].
    """
    padded = jnp.pad(x, [(0, 0), (reach, reach), *[(0, 0)] * (x.ndim - 2)])
    near = [padded[:, shift : shift + x.shape[1]] for shift in range(2 * reach + 1)]
    return jnp.concatenate(near, axis=-1)


class TimeBlock(nn.Module):
    """A residual convolution in time; normalises each moment separately, so that none sees beyond its reach."""

    features: int
    reach: int
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Map [B, T, features] to the same shape."""
        y = nn.Dense(self.features, dtype=self.dtype)(with_neighbours(nn.LayerNorm()(x), self.reach))
        y = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(y))
        return x + nn.Dense(self.features, dtype=self.dtype)(y)
