"""Energies of latents, for pairs of modalities or for all jointly; low where latents belong together."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.networks.base import IntoTokens, dense, dense_of_latents, fourier_features
from sbm_jax.tokens import Owner, one_each, sum_by_modality
from sbm_jax.types import Array

_TIME_FEATURES = 32


class PairEnergy(nn.Module):
    """E(z_o, z_u) of ordered pairs of modalities, by a softplus MLP over their diffused latents and times.

    One network serves all pairs, as in the authors' code; each modality has two projections of its own, one for each
    place in the pair, so that latents of different sizes or meanings can be paired. The times enter every layer.

    Attributes:
      width: units per layer.
      depth: number of hidden layers.
      sizes: number of valid entries of each token; the others are padding. () for all D.
      owner: the modality of each token; () for one token each.

    Reference: D. Wesego and P. Rooshenas, 2023, section 2.2.1 and appendix A.3.
    """

    width: int
    depth: int
    sizes: tuple[int, ...] = ()
    owner: Owner = ()

    @nn.compact
    def __call__(self, observed: Array, observed_t: Array, free: Array, free_t: Array, pairs: Array) -> Array:
        """Return the energies [B, P].

        Args:
          observed: latents for the first place of a pair [B, N, D].
          observed_t: their times [B, M].
          free: latents for the second place [B, N, D].
          free_t: their times [B, M].
          pairs: int [B, P, 2], the modalities in the first and second place.
        """

        def pick(values: Array, place: int) -> Array:
            index = pairs[:, :, place].reshape(*pairs.shape[:2], *(1,) * (values.ndim - 2))
            return jnp.take_along_axis(values, index, axis=1)

        times = [pick(fourier_features(t, _TIME_FEATURES), i) for i, t in enumerate((observed_t, free_t))]
        first = self._by_modality(IntoTokens(self.width, self.sizes, name="first")(observed))
        second = self._by_modality(IntoTokens(self.width, self.sizes, name="second")(free))
        hidden = nn.LayerNorm()(pick(first, 0) + pick(second, 1))
        for _ in range(self.depth):
            hidden = jax.nn.softplus(dense(self.width)(jnp.concatenate([hidden, *times], axis=-1)))
        return dense(1)(hidden)[:, :, 0]

    def _by_modality(self, x: Array) -> Array:
        """Sum each modality's tokens, scaled to the variance of one token: [B, M, width]."""
        if one_each(self.owner):
            return x
        return sum_by_modality(x, self.owner) / jnp.sqrt(np.bincount(self.owner))[None, :, None]


class PairEnergies(PairEnergy):
    """A `PairEnergy` with a separate network for each of the M (M - 1) / 2 pairs, all evaluated for every pair.

    Reference: D. Wesego and P. Rooshenas, 2024, appendix A.9.
    """

    @nn.compact
    def __call__(self, observed: Array, observed_t: Array, free: Array, free_t: Array, pairs: Array) -> Array:
        """Return the energies [B, P]; see `PairEnergy`."""
        num_modalities = observed_t.shape[1]
        first, second = np.triu_indices(num_modalities, 1)
        number = np.zeros((num_modalities, num_modalities), np.int32)  # the diagonal is unused and stays 0
        number[first, second] = number[second, first] = np.arange(len(first))
        networks = nn.vmap(
            PairEnergy, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=len(first)
        )(self.width, self.depth, self.sizes, self.owner, name="pairs")
        energies = networks(observed, observed_t, free, free_t, pairs)
        chosen = jnp.asarray(number)[pairs[..., 0], pairs[..., 1]]
        return jnp.take_along_axis(energies, chosen[None], axis=0)[0]


class JointPerceptron(nn.Module):
    """An MLP over the latents of all modalities, for an energy (one output) or a vector field.

    Attributes:
      width: units per layer.
      depth: number of hidden layers.
      outputs: size of the output.
      sizes: number of valid entries of each token; the others are padding. () for all D.

    Reference: "Energy-Based Multimodal VAEs", 2022, section 3.
    """

    width: int
    depth: int
    outputs: int
    sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map latents [B, N, D] to [B, outputs]."""
        hidden = z.reshape(len(z), -1)
        for i in range(self.depth):
            layer = dense(self.width) if i else dense_of_latents(self.width, z.shape[1:], self.sizes, jnp.float32)
            hidden = jax.nn.silu(layer(hidden))
        return dense(self.outputs)(hidden)
