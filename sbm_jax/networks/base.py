"""Layers for networks over joint latents, and the interface of score networks."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from sbm_jax.tokens import Owner, by_token
from sbm_jax.types import Array


def dense(features: int, dtype: DTypeLike = jnp.float32, **options) -> nn.Dense:
    """Return a dense layer with operands of type `dtype`, sums and result in float32.

    On CPUs with bfloat16 units, a bfloat16 product with a float32 result runs twice as fast as one with a bfloat16
    result, and about twice as fast as in float32.
    """
    product = functools.partial(lax.dot_general, preferred_element_type=jnp.float32)
    return nn.Dense(features, dtype=dtype, dot_general=product, **options)


def dense_of_latents(features: int, shape: tuple[int, int], sizes: tuple[int, ...], dtype: DTypeLike) -> nn.Dense:
    """Return a dense layer for flattened latents [N, D], with its kernel scaled by the number of valid entries.

    Args:
      features: output features.
      shape: (N, D).
      sizes: valid entries of each token; () for all D.
      dtype: see `dense`.
    """
    padded = shape[0] * shape[1] / sum(sizes or (shape[1],) * shape[0])
    return dense(features, dtype, kernel_init=nn.initializers.variance_scaling(padded, "fan_in", "truncated_normal"))


def fourier_features(t: Array, size: int) -> Array:
    """Return sin and cos of 2π f t for `size // 2` frequencies f from 1/4 to 64, geometric: [...] -> [..., size]."""
    frequencies = jnp.geomspace(0.25, 64.0, size // 2)
    angles = 2 * jnp.pi * t[..., None] * frequencies.reshape((1,) * t.ndim + (-1,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def modulated_norm(x: Array, modulation: Array) -> Array:
    """Return the layer norm of x [..., W], scaled and shifted by the halves of the modulation [..., 2W]."""
    scale, shift = jnp.split(modulation, 2, axis=-1)
    return jax.nn.standardize(x, epsilon=1e-6) * (1 + scale) + shift


class IntoTokens(nn.Module):
    """Embeds each token by its own projection and identity, since latent spaces have nothing in common.

    Attributes:
      width: output size.
      sizes: valid entries of each token; () for all D. Outputs initially have the same variance whatever the sizes.
    """

    width: int
    sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map latents [B, N, D] to tokens [B, N, width]."""
        _, num_tokens, size = z.shape
        valid = jnp.array(self.sizes or (size,) * num_tokens)

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return nn.initializers.lecun_normal(batch_axis=0)(key, shape) * jnp.sqrt(size / valid)[:, None, None]

        kernel = self.param("kernel", init, (num_tokens, size, self.width))
        identity = self.param("identity", nn.initializers.normal(0.5), (num_tokens, self.width))
        return jnp.einsum("bnd,ndw->bnw", z, kernel) + identity[None]


class ScoreNetwork(nn.Module, kw_only=True):
    """A network over joint latents: `(z, t, observed, present, embedding) -> [B, N, D]`, float32.

    z [B, N, D] are diffused latents of N tokens, clean where observed; t [B, M] the times of the modalities, 0 where
    observed; observed bool [B, M]; present bool [B, M] or None (all); embedding [B, E] or None, of the observed data.
    With `train`, it uses dropout and needs a ``dropout`` key.

    A network with `gives_marginals` treats a row in which nothing is present as M rows of one modality each, and
    returns the output for every modality on its own.

    A sampler's evaluations differ only in the unobserved latents and their time. It calls `prepare` once and `denoise`
    in every step; networks that can share work between steps override both.

    Attributes:
      sizes: valid entries of each token; () for all D.
      owner: modality of each token; () for one token each (see `tokens`).
    """

    sizes: tuple[int, ...] = ()
    owner: Owner = ()

    gives_marginals = False

    def prepare(
        self, z: Array, observed: Array, present: Array | None, embedding: Array | None, num_free: int | None
    ) -> Any:
        """Compute what all evaluations with these observed latents share.

        Args:
          z: [B, N, D], the observed latents; other entries are ignored.
          observed: bool [B, M].
          present: bool [B, M] or None.
          embedding: [B, E] or None.
          num_free: upper bound on the present, unobserved modalities of a row; None for M.
        """
        del num_free
        return z, observed, present, embedding

    def denoise(self, prepared: Any, z: Array, t: Array) -> Array:
        """Return the network's output [B, N, D]; meaningless at observed entries.

        Args:
          prepared: the result of `prepare`.
          z: [B, N, D], the diffused latents; observed entries are ignored.
          t: scalar, the time of all unobserved modalities.
        """
        z_observed, observed, present, embedding = prepared
        z = jnp.where(by_token(observed, self.owner)[:, :, None], z_observed, z)
        return self(z, jnp.where(observed, 0.0, t), observed, present, embedding)
