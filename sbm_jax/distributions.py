"""Decoder likelihoods and Gaussian divergences. Densities include their constants.

Every likelihood is a `Likelihood` record of pure functions of the decoder's raw output.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sbm_jax.types import Array


class Likelihood(NamedTuple):
    """A family p(x | decoder output).

    Attributes:
      log_prob: `(x, output, scale) -> [B, ...]`, the log density of each entry (of each class vector, for
        categorical); x in [0, 1].
      mean: `output -> x`, the expected data, in the units of the data.
      bounded: True where data must lie in [0, 1].
    """

    log_prob: Callable[[Array, Array, float], Array]
    mean: Callable[[Array], Array]
    bounded: bool


def _gaussian(x: Array, output: Array, scale: float) -> Array:
    return -0.5 * jnp.square((x - output) / scale) - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def _laplace(x: Array, output: Array, scale: float) -> Array:
    return -jnp.abs(x - output) / scale - jnp.log(2 * scale)


def _bernoulli(x: Array, output: Array, scale: float) -> Array:
    del scale
    return x * output - jax.nn.softplus(output)


def _categorical(x: Array, output: Array, scale: float) -> Array:
    del scale
    return jnp.sum(x * jax.nn.log_softmax(output), axis=-1)


LIKELIHOODS = {
    "gaussian": Likelihood(_gaussian, lambda output: output, bounded=False),
    "laplace": Likelihood(_laplace, lambda output: output, bounded=False),
    "bernoulli": Likelihood(_bernoulli, jax.nn.sigmoid, bounded=True),
    "categorical": Likelihood(_categorical, jax.nn.softmax, bounded=True),
}


def sum_over_entries(values: Array) -> Array:
    """Sum all axes but the first: [B, ...] -> [B]."""
    return values.reshape(values.shape[0], -1).sum(axis=1)


def standard_normal_kl(mean: Array, log_variance: Array) -> Array:
    """Return KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²), summed over the last axis."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)
