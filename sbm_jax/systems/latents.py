"""Latents of several modalities as one array: packing, standardising, and the bank that a score model is trained on."""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.types import Array, Key, Modality


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


@flax.struct.dataclass
class LatentStatistics:
    """Mean and standard deviation of each latent entry over the training bank, both [M, D]; 0 and 1 on padding."""

    mean: Array
    std: Array

    def standardise(self, z: Array) -> Array:
        """Map latents [B, M, D] to zero mean and unit variance."""
        return (z - self.mean[None]) / self.std[None]

    def restore(self, z: Array) -> Array:
        """Undo `standardise`."""
        return z * self.std[None] + self.mean[None]


def latent_statistics(mean: Array, std: Array, valid: Array) -> LatentStatistics:
    """Return the statistics of samples from N(mean, std²), both [N, M, D], over the rows."""
    variance = jnp.var(mean, axis=0) + jnp.mean(jnp.square(std), axis=0)
    return LatentStatistics(
        mean=jnp.where(valid, jnp.mean(mean, axis=0), 0.0),
        std=jnp.where(valid, jnp.maximum(jnp.sqrt(variance), 1e-3), 1.0),
    )


def sample_posterior(key: Key, mean: Array, std: Array) -> Array:
    """Return mean + std ε."""
    return mean + std * jax.random.normal(key, mean.shape)
