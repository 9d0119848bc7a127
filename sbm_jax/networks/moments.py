"""Data that follow one another in time, cut into moments of equal length, and a convolution of them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.types import Array


def num_moments(length: int, frames: int) -> int:
    """Return how many moments of so many frames hold a length of frames; the last may be filled up."""
    return -(-length // frames)


def to_moments(x: Array, frames: int) -> Array:
    """Return [B, moments, frames, ...] of [B, T, ...], filled up with zeros at the end."""
    batch, length, *rest = x.shape
    moments = num_moments(length, frames)
    filled = [(0, 0), (0, moments * frames - length), *[(0, 0)] * len(rest)]
    return jnp.pad(x, filled).reshape(batch, moments, frames, *rest)


def from_moments(x: Array, length: int) -> Array:
    """Undo `to_moments`: return [B, T, ...] for a length T."""
    batch, moments, frames, *rest = x.shape
    return x.reshape(batch, moments * frames, *rest)[:, :length]


def with_neighbours(x: Array, reach: int) -> Array:
    """Return [B, T, ..., (2 reach + 1) F]: each moment of [B, T, ..., F] beside those before and after; 0 beyond."""
    padded = jnp.pad(x, [(0, 0), (reach, reach), *[(0, 0)] * (x.ndim - 2)])
    near = [padded[:, shift : shift + x.shape[1]] for shift in range(2 * reach + 1)]
    return jnp.concatenate(near, axis=-1)


class TimeBlock(nn.Module):
    """A residual convolution in time. Each moment is normed on its own, and so sees none beyond its reach."""

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
