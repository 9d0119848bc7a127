"""Latents of several modalities as one array: packing, standardising, and the bank that a score model is trained on."""

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
    """Return the modality of each of the N tokens that latents are cut into."""
    return tuple(i for i, modality in enumerate(modalities) for _ in range(modality.num_tokens))


def token_sizes(modalities: Sequence[Modality]) -> tuple[int, ...]:
    """Return the entries of each of the N tokens that are no padding."""
    return tuple(m.latent_size // m.num_tokens for m in modalities for _ in range(m.num_tokens))


def valid_entries(modalities: Sequence[Modality]) -> np.ndarray:
    """Return bool [N, D], D the largest size of a token: False on the padding of shorter ones."""
    sizes = np.array(token_sizes(modalities))
    return np.arange(sizes.max())[None] < sizes[:, None]


def pack(latents: Mapping[str, Array], modalities: Sequence[Modality]) -> Array:
    """Cut {name: [B, D_m]} into tokens [B, N, D], zero-padded; modalities that are not in `latents` are zeros."""
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
    """Return the arrays that `encode_fn`, compiled, makes of rows, for all of a split.

    Args:
      encode_fn: `(params, pytree of arrays [B, ...]) -> pytree of arrays [B, ...]`, row by row.
      params: its first argument.
      rows: `Rows` or a pytree of arrays [N, ...]; no more of them than some chunks are in memory at a time.
      chunk: rows at a time.

    Returns:
      Arrays [N, ...], all in memory.
    """
    encode, rows = parallel.over_rows(encode_fn), as_rows(rows)
    num_rows = len(rows)
    chunk, parts = min(chunk, num_rows), []
    for start in range(0, num_rows, chunk):
        # The last chunk starts early, to have the size that is compiled; its repeated rows are cut off.
        first = min(start, num_rows - chunk)
        jax.block_until_ready(parts[-2:-1])  # rows are read while the device computes, and do not pile up before it
        encoded = encode(params, rows.take(np.arange(first, first + chunk)))
        parts.append(jax.tree.map(lambda array, skip=start - first: array[skip:], encoded))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


@flax.struct.dataclass
class LatentStatistics:
    """Moments of the training bank.

    Attributes:
      mean: of each entry [N, D]; 0 on padding.
      std: standard deviation of each entry [N, D]; 1 on padding.
      correlation: between all entries [N*D, N*D], the covariance of standardised latents; that of padding is 0.
    """

    mean: Array
    std: Array
    correlation: Array

    def standardise(self, z: Array) -> Array:
        """Map latents [B, N, D] to zero mean and unit variance."""
        return (z - self.mean[None]) / self.std[None]

    def restore(self, z: Array) -> Array:
        """Undo `standardise`."""
        return z * self.std[None] + self.mean[None]


def latent_statistics(mean: Array, std: Array, valid: Array, present: Array | None = None) -> LatentStatistics:
    """Return the statistics of samples from N(mean, std²), both [rows, N, D], over the rows.

    Of a token that not all rows have, `present` bool [rows, N], they are over those that do. Correlations of two such
    tokens are lower than over the rows that have both, by n_ij / sqrt(n_i n_j), and so positive semidefinite.
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
    """Return mean + std ε."""
    return mean + std * jax.random.normal(key, mean.shape)
