"""Denoisers without parameters, with known answers."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from sbm_jax.sde import VP, Cosine

SHAPE = (2, 3, 1)
SIZE = 6
SDE = VP(0.1, 20.0)
RNG = np.random.default_rng(0)
GAIN = RNG.normal(size=(SIZE, 2)).astype(np.float32)
FACTORS = RNG.normal(size=(SIZE, SIZE)).astype(np.float32)
COVARIANCE = (0.1 * FACTORS @ FACTORS.T + 0.1 * np.eye(SIZE)).astype(np.float32)
"""x given a latent z is N(GAIN z, COVARIANCE), in the units in which it is diffused."""


class Exact(nn.Module):
    """E[x | x_t, z], given x_t / s and z: a perfect network with the prediction ``"data"``."""

    config: object

    @nn.compact
    def __call__(self, x, t, maps, vector, train=False):
        """Return the posterior mean."""
        return posterior_mean(SDE, x, t, vector)


class ExactVelocity(nn.Module):
    """The velocity α ε - σ x of the same law under the cosine process: a perfect network of the defaults."""

    config: object

    @nn.compact
    def __call__(self, x, t, maps, vector, train=False):
        """Return the mean of the velocity."""
        alpha, sigma = (value[:, None, None, None] for value in Cosine().marginal(t))
        mean = posterior_mean(Cosine(), x, t, vector)
        return alpha * (x - alpha * mean) / sigma - sigma * mean


def posterior_mean(sde, x, t, latent):
    """Return E[x | x_t, z] of x_t / s [B, *SHAPE], times [B] and latents [B, 2]."""
    alpha, sigma = (value[:, None] for value in sde.marginal(t))
    mean = latent @ GAIN.T
    x_t = (x * jnp.sqrt(alpha**2 + sigma**2)[:, :, None, None]).reshape(len(x), -1)
    spread = alpha[:, :, None] ** 2 * COVARIANCE[None] + sigma[:, :, None] ** 2 * jnp.eye(SIZE)[None]
    residual = jnp.linalg.solve(spread, (x_t - alpha * mean)[..., None])
    return (mean + alpha * (COVARIANCE[None] @ residual)[..., 0]).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A denoiser that answers with a sum of what it is given, so that NumPy can restate it."""

    config: object

    def __call__(self, x, t, maps, vector, train=False):
        """Return 0.9 x - 0.2 (the first channels of the maps) - 0.1 t, as noise."""
        return 0.9 * x - 0.2 * maps[..., : x.shape[-1]] - 0.1 * t[:, None, None, None]
