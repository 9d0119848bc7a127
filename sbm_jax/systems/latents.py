"""Latents of several modalities as one array: packing, standardising, and the bank that a score model is trained on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax import parallel
from sbm_jax.rows import as_rows
from sbm_jax.types import Array, Key, Modality, Params


def valid_entries(modalities: Sequence[Modality]) -> np.ndarray:
    """Return bool [M, D], D the largest latent size: False on the padding of shorter latents."""
    sizes = np.array([modality.latent_size for modality in modalities])
    return np.arange(sizes.max())[None] < sizes[:, None]


def pack(latents: Mapping[str, Array], modalities: Sequence[Modality]) -> Array:
    """Stack {name: [B, D_m]} to [B, M, D], zero-padded; modalities that are not in `latents` are zeros."""
    batch = len(next(iter(latents.values())))
    size = max(modality.latent_size for modality in modalities)
    rows = [latents.get(m.name, jnp.zeros((batch, m.latent_size))) for m in modalities]
    return jnp.stack([jnp.pad(row, ((0, 0), (0, size - row.shape[1]))) for row in rows], axis=1)


def unpack(z: Array, modalities: Sequence[Modality]) -> dict[str, Array]:
    """Undo `pack`: [B, M, D] to {name: [B, D_m]}."""
    return {m.name: z[:, i, : m.latent_size] for i, m in enumerate(modalities)}


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
      mean: of each entry [M, D]; 0 on padding.
      std: standard deviation of each entry [M, D]; 1 on padding.
      correlation: between all entries [M*D, M*D], the covariance of standardised latents; that of padding is 0.
    """

    mean: Array
    std: Array
    correlation: Array

    def standardise(self, z: Array) -> Array:
        """Map latents [B, M, D] to zero mean and unit variance."""
        return (z - self.mean[None]) / self.std[None]

    def restore(self, z: Array) -> Array:
        """Undo `standardise`."""
        return z * self.std[None] + self.mean[None]


def latent_statistics(mean: Array, std: Array, valid: Array, present: Array | None = None) -> LatentStatistics:
    """Return the statistics of samples from N(mean, std²), both [N, M, D], over the rows.

    Of a modality that not all rows have, `present` bool [N, M], they are over those that do. Correlations of two such
    modalities are lower than over the rows that have both, by n_ij / sqrt(n_i n_j), and so positive semidefinite.
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
