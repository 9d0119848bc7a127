"""Latents of several modalities as one array: packing, encoding a data set, and standardising."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax import parallel
from sbm_jax.rows import as_rows
from sbm_jax.tokens import Owner
from sbm_jax.types import Array, Key, Modality, Params


def token_owners(modalities: Sequence[Modality]) -> Owner:
    """Return the index of the modality that owns each of the N tokens."""
    return tuple(i for i, modality in enumerate(modalities) for _ in range(modality.num_tokens))


def token_sizes(modalities: Sequence[Modality]) -> tuple[int, ...]:
    """Return the number of entries of each of the N tokens, without padding."""
    return tuple(m.latent_size // m.num_tokens for m in modalities for _ in range(m.num_tokens))


def valid_entries(modalities: Sequence[Modality]) -> np.ndarray:
    """Return bool [N, D], with D the largest token size: False on the padding of shorter tokens."""
    sizes = np.array(token_sizes(modalities))
    return np.arange(sizes.max())[None] < sizes[:, None]


def pack(latents: Mapping[str, Array], modalities: Sequence[Modality]) -> Array:
    """Split latents {name: [B, D_m]} into zero-padded tokens [B, N, D]; missing modalities are zeros."""
    batch = len(next(iter(latents.values())))
    size, parts = max(token_sizes(modalities)), []
    for modality in modalities:
        vectors = latents.get(modality.name, jnp.zeros((batch, modality.latent_size)))
        tokens = vectors.reshape(batch, modality.num_tokens, -1)
        parts.append(jnp.pad(tokens, ((0, 0), (0, 0), (0, size - tokens.shape[2]))))
    return jnp.concatenate(parts, axis=1)


def unpack(z: Array, modalities: Sequence[Modality]) -> dict[str, Array]:
    """Undo `pack`: [..., N, D] to {name: [..., D_m]}."""
    latents, start = {}, 0
    for m in modalities:
        tokens = z[..., start : start + m.num_tokens, : m.latent_size // m.num_tokens]
        latents[m.name] = tokens.reshape(*z.shape[:-2], m.latent_size)
        start += m.num_tokens
    return latents


def encode_rows(encode_fn: Callable[[Params, Any], Any], params: Params, rows: Any, chunk: int) -> Any:
    """Encode all rows of a split in chunks, with `encode_fn` compiled.

    Args:
      encode_fn: `(params, pytree of arrays [B, ...]) -> pytree of arrays [B, ...]`, independent across rows.
      params: first argument of `encode_fn`.
      rows: `Rows` or a pytree of arrays [N, ...]; only a few chunks of `Rows` are in memory at a time.
      chunk: number of rows encoded at a time.

    Returns:
      A pytree of arrays [N, ...], all in memory.
    """
    encode, rows = parallel.over_rows(encode_fn), as_rows(rows)
    num_rows = len(rows)
    chunk, parts = min(chunk, num_rows), []
    for start in range(0, num_rows, chunk):
        # The last chunk starts early to keep the compiled size; its repeated rows are dropped.
        first = min(start, num_rows - chunk)
        jax.block_until_ready(parts[-2:-1])  # read rows while the device computes, without queueing them all
        encoded = encode(params, rows.take(np.arange(first, first + chunk)))
        parts.append(jax.tree.map(lambda array, skip=start - first: array[skip:], encoded))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


class LatentStatistics(flax.struct.PyTreeNode):
    """Moments of the training bank.

    Attributes:
      mean: mean of each entry [N, D]; 0 on padding.
      std: standard deviation of each entry [N, D]; 1 on padding.
      correlation: correlation of all entries [N*D, N*D], the covariance of standardised latents; 0 on padding.
    """

    mean: Array
    std: Array
    correlation: Array

    def standardise(self, z: Array) -> Array:
        """Standardise latents [B, N, D] to zero mean and unit variance."""
        return (z - self.mean[None]) / self.std[None]

    def restore(self, z: Array) -> Array:
        """Undo `standardise`."""
        return z * self.std[None] + self.mean[None]


def latent_statistics(mean: Array, std: Array, valid: Array, present: Array | None = None) -> LatentStatistics:
    """Return the statistics, over rows, of samples from N(mean, std²), both [rows, N, D]; `valid` is bool [N, D].

    Statistics of a token use only the rows that have it (`present`, bool [rows, N]). The correlation of two incomplete
    tokens is that over the rows with both, times n_ij / sqrt(n_i n_j), which keeps the matrix positive semidefinite.
    """
    where = None if present is None else jnp.broadcast_to(present[:, :, None], mean.shape)
    average, noise = jnp.mean(mean, axis=0, where=where), jnp.mean(jnp.square(std), axis=0, where=where)
    scale = jnp.maximum(jnp.sqrt(jnp.var(mean, axis=0, where=where) + noise), 1e-3)
    white = jnp.where(valid[None], (mean - average[None]) / scale[None], 0.0)
    if present is not None:
        share = jnp.maximum(present.mean(axis=0), 1 / len(mean))
        white = jnp.where(where, white, 0.0) / jnp.sqrt(share)[None, :, None]
    white = white.reshape(len(mean), -1)
    own = jnp.diag(jnp.where(valid, noise / scale**2, 0.0).ravel())
    correlation = jnp.matmul(white.T, white, precision="highest") / len(mean) + own
    return LatentStatistics(jnp.where(valid, average, 0.0), jnp.where(valid, scale, 1.0), correlation)


def sample_posterior(key: Key, mean: Array, std: Array) -> Array:
    """Sample mean + std ε with ε ~ N(0, I), of the shape of `mean`."""
    return mean + std * jax.random.normal(key, mean.shape)
