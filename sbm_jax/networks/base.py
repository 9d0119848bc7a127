"""Parts of networks over joint latents, and what every score network offers."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from sbm_jax.types import Array


def dense(features: int, dtype: DTypeLike = jnp.float32, **options) -> nn.Dense:
    """Return a dense layer with operands of type `dtype`, sums and result in float32.

    On CPUs with bfloat16 units a product that is asked for float32 runs twice as fast as one that is not, and about
    twice as fast as in float32.
    """
    product = functools.partial(lax.dot_general, preferred_element_type=jnp.float32)
    return nn.Dense(features, dtype=dtype, dot_general=product, **options)


def dense_of_latents(features: int, shape: tuple[int, int], sizes: tuple[int, ...], dtype: DTypeLike) -> nn.Dense:
    """Return a dense layer for flattened latents [M, D], its kernel scaled by the entries that are no padding.

    Args:
      features: of the result.
      shape: (M, D).
      sizes: D_m, the entries of each modality that are no padding; () for all D.
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
    """A projection and an identity of its own for each modality: latent spaces have nothing in common.

    Attributes:
      width: size of a token.
      sizes: D_m, the entries of each modality that are no padding; () for all D. Tokens start with the same variance
        whatever their number.
    """

    width: int
    sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map latents [B, M, D] to tokens [B, M, width]."""
        _, num_modalities, size = z.shape
        valid = jnp.array(self.sizes or (size,) * num_modalities)

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return nn.initializers.lecun_normal(batch_axis=0)(key, shape) * jnp.sqrt(size / valid)[:, None, None]

        kernel = self.param("kernel", init, (num_modalities, size, self.width))
        identity = self.param("identity", nn.initializers.normal(0.5), (num_modalities, self.width))
        return jnp.einsum("bmd,mdw->bmw", z, kernel) + identity[None]


class ScoreNetwork(nn.Module):
    """A network over joint latents: `(z, t, observed, present, embedding) -> [B, M, D]`, float32.

    z [B, M, D] are diffused latents, clean where observed; t [B, M] their times, 0 where observed; observed bool
    [B, M]; present bool [B, M] or None (all); embedding [B, E] or None, of the observed data. With `train` and a
    ``dropout`` key it drops out.

    A network with `gives_marginals` takes a row in which nothing is present for M rows of one modality each: it returns
    what every modality would get if it were alone.

    A sampler asks for many evaluations that differ in the unobserved latents and their one time only. It calls
    `prepare` once and `denoise` in every step; networks that can share work between steps override both.
    """

    gives_marginals = False

    def prepare(
        self, z: Array, observed: Array, present: Array | None, embedding: Array | None, num_free: int | None
    ) -> Any:
        """Return what evaluations with these observed latents share.

        Args:
          z: [B, M, D], the observed latents; other entries are ignored.
          observed: bool [B, M].
          present: bool [B, M] or None.
          embedding: [B, E] or None.
          num_free: the largest number of present, unobserved modalities of a row, where it is known; None for M.
        """
        del num_free
        return z, observed, present, embedding

    def denoise(self, prepared: Any, z: Array, t: Array) -> Array:
        """Return the network's output [B, M, D]; meaningless at observed entries.

        Args:
          prepared: the result of `prepare`.
          z: [B, M, D], the diffused latents; observed entries are ignored.
          t: scalar, the time of all that is not observed.
        """
        z_observed, observed, present, embedding = prepared
        z = jnp.where(observed[:, :, None], z_observed, z)
        return self(z, jnp.where(observed, 0.0, t), observed, present, embedding)
