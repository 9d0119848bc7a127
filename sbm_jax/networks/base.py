"""Building blocks of networks over joint latents, and the interface of score networks."""

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
    """Return a dense layer with operands of type `dtype`, and sums and result in float32.

    On CPUs with bfloat16 units, a bfloat16 product with a float32 result runs twice as fast as one with a bfloat16
    result, and about twice as fast as a float32 product.
    """
    product = functools.partial(lax.dot_general, preferred_element_type=jnp.float32)
    return nn.Dense(features, dtype=dtype, dot_general=product, **options)


def dense_of_latents(features: int, shape: tuple[int, int], sizes: tuple[int, ...], dtype: DTypeLike) -> nn.Dense:
    """Return a dense layer for flattened latents [N, D], with its initial kernel scaled to the number of valid entries.

    Args:
      features: size of the result.
      shape: (N, D).
      sizes: number of valid entries of each token; the others are padding. () for all D.
      dtype: see `dense`.
    """
    padded = shape[0] * shape[1] / sum(sizes or (shape[1],) * shape[0])
    return dense(features, dtype, kernel_init=nn.initializers.variance_scaling(padded, "fan_in", "truncated_normal"))


def fourier_features(t: Array, size: int) -> Array:
    """Return sin and cos of 2π f t for `size // 2` geometric frequencies f from 1/4 to 64: [...] -> [..., size]."""
    frequencies = jnp.geomspace(0.25, 64.0, size // 2)
    angles = 2 * jnp.pi * t[..., None] * frequencies.reshape((1,) * t.ndim + (-1,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def modulated_norm(x: Array, modulation: Array) -> Array:
    """Apply a layer norm to x [..., W], then scale and shift it by the halves of `modulation` [..., 2W]."""
    scale, shift = jnp.split(modulation, 2, axis=-1)
    return jax.nn.standardize(x, epsilon=1e-6) * (1 + scale) + shift


class IntoTokens(nn.Module):
    """Embeds latents as tokens, each with its own projection and identity, since latent spaces share no structure.

    Attributes:
      width: size of an embedded token.
      sizes: number of valid entries of each token; the others are padding. () for all D. The initial variance of the
        result does not depend on it.
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

    z [B, N, D] holds N tokens of diffused latents, clean where observed; t [B, M] the times of the modalities, 0 where
    observed; observed is bool [B, M]; present is bool [B, M] or None (all); embedding [B, E], or None, embeds the
    observed data. With `train` and a ``dropout`` key, dropout is applied.

    If `gives_marginals`, the network treats a row where nothing is present as M rows of one modality each: it returns
    each modality's output as if that modality were alone.

    The evaluations of one sampling call differ only in the unobserved latents and their shared time. The sampler calls
    `prepare` once and `denoise` in every step; networks that can share work between steps override both.

    Attributes:
      sizes: number of valid entries of each token; the others are padding. () for all D.
      owner: the modality of each token; () for one token each (see `tokens`).
    """

    sizes: tuple[int, ...] = ()
    owner: Owner = ()

    gives_marginals = False

    def prepare(
        self, z: Array, observed: Array, present: Array | None, embedding: Array | None, num_free: int | None
    ) -> Any:
        """Compute what all evaluations with the same observed latents share.

        Args:
          z: observed latents [B, N, D]; other entries are ignored.
          observed: bool [B, M].
          present: bool [B, M] or None.
          embedding: [B, E] or None.
          num_free: upper bound on the present, unobserved modalities of any row, if known; None for M.
        """
        del num_free
        return z, observed, present, embedding

    def denoise(self, prepared: Any, z: Array, t: Array) -> Array:
        """Return the network's output [B, N, D]; meaningless at observed entries.

        Args:
          prepared: the result of `prepare`.
          z: diffused latents [B, N, D]; observed entries are ignored.
          t: scalar, the time of all unobserved modalities.
        """
        z_observed, observed, present, embedding = prepared
        z = jnp.where(by_token(observed, self.owner)[:, :, None], z_observed, z)
        return self(z, jnp.where(observed, 0.0, t), observed, present, embedding)
