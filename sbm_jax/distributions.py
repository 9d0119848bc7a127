"""Likelihoods, posteriors, products of experts and divergences. Densities include their normalising constants.

Every likelihood is a `Likelihood` record of pure functions of the decoder's raw output.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sbm_jax.types import Array

Real = Array | np.ndarray | float
"""What densities take: numbers of any shapes that broadcast."""


class Likelihood(NamedTuple):
    """A family p(x | decoder output).

    Attributes:
      log_prob: `(x, output, scale) -> [B, ...]`, the log density of each entry (for categorical, of each class vector;
        for Poisson, whose output is the log rate, the log probability of each count).
      mean: `output -> x`, the expected data, in data units.
      bounded: whether data must lie in [0, 1].
      has_scale: whether `log_prob` uses the scale; if not, it may be None.
      least: smallest value allowed in data that need not lie in [0, 1].
      features: `x -> x'`, transforms data before they enter an encoder.
    """

    log_prob: Callable[[Real, Real, Any], Array]
    mean: Callable[[Array], Array]
    bounded: bool
    has_scale: bool
    least: float = -math.inf
    features: Callable[[Array], Array] = lambda x: x


def _gaussian(x: Real, output: Real, scale: Real) -> Array:
    return -0.5 * jnp.square((x - output) / scale) - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def _laplace(x: Real, output: Real, scale: Real) -> Array:
    return -jnp.abs(x - output) / scale - jnp.log(2 * scale)


def _bernoulli(x: Real, output: Real, scale: Real | None) -> Array:
    del scale
    return jnp.multiply(x, output) - jax.nn.softplus(output)


def _categorical(x: Real, output: Real, scale: Real | None) -> Array:
    del scale
    return jnp.sum(x * jax.nn.log_softmax(output), axis=-1)


def _poisson(x: Real, output: Real, scale: Real | None) -> Array:
    del scale
    return jnp.multiply(x, output) - jnp.exp(output) - jax.scipy.special.gammaln(x + 1.0)


LIKELIHOODS = {
    "gaussian": Likelihood(_gaussian, lambda output: output, bounded=False, has_scale=True),
    "laplace": Likelihood(_laplace, lambda output: output, bounded=False, has_scale=True),
    "bernoulli": Likelihood(_bernoulli, jax.nn.sigmoid, bounded=True, has_scale=False),
    "categorical": Likelihood(_categorical, jax.nn.softmax, bounded=True, has_scale=False),
    "poisson": Likelihood(_poisson, jnp.exp, bounded=False, has_scale=False, least=0.0, features=jnp.log1p),
}


def sum_over_entries(values: Float[Array, " B *entry"]) -> Float[Array, " B"]:
    """Sum over all axes but the first."""
    return values.reshape(values.shape[0], -1).sum(axis=1)


def standard_normal_kl(mean: Float[Array, "*lead D"], log_variance: Float[Array, "*lead D"]) -> Float[Array, "*lead"]:
    """Return KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²), summed over the last axis."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)


def gaussian_kl(
    mean: Float[Array, "*#lead D"],
    log_variance: Float[Array, "*#lead D"],
    other_mean: Float[Array, "*#lead D"],
    other_log_variance: Float[Array, "*#lead D"],
) -> Float[Array, "*out"]:
    """Return KL(N(μ, σ²) ‖ N(μ', σ'²)) of diagonal Gaussians, summed over the last axis."""
    difference = log_variance - other_log_variance
    distance = jnp.square(mean - other_mean) * jnp.exp(-other_log_variance)
    return 0.5 * jnp.sum(jnp.exp(difference) + distance - 1.0 - difference, axis=-1)


def product_of_experts(
    mean: Float[Array, "*#lead M D"],
    log_variance: Float[Array, "*#lead M D"],
    members: Bool[Array, "*#lead M"],
    eps: float = 0.0,
    prior: Bool[Array, "*#lead"] | bool = False,
) -> tuple[Float[Array, "*out D"], Float[Array, "*out D"]]:
    """Return the mean and the log variance of the normalised product of Gaussian experts.

    T = Σ_m T_m, μ = Σ_m T_m μ_m / T, σ² = 1 / T, with precisions T_m = 1 / (σ_m² + eps).

    Args:
      mean: means of the experts.
      log_variance: log variances of the experts.
      members: the experts in each product. The empty product is N(0, I).
      eps: added to each variance.
      prior: whether to include N(0, I) as one more expert.
    """
    add = functools.partial(jnp.matmul, members.astype(mean.dtype)[..., None, :], precision="highest")
    own = 1.0 / (jnp.exp(log_variance) + eps)
    precision, weighted = add(own), add(own * mean)
    extra = jnp.where(jnp.asarray(prior) | ~members.any(axis=-1), 1.0 / (1.0 + eps), 0.0).astype(mean.dtype)
    total = precision[..., 0, :] + extra[..., None]
    return weighted[..., 0, :] / total, -jnp.log(total)


class Posterior(NamedTuple):
    """A family of posteriors and priors for mixtures of experts.

    Attributes:
      scale: `raw -> scale`, maps an encoder's second output to the scale.
      sample: `(mean, scale, noise) -> z`.
      log_prob: `(z, mean, scale) -> [...]`, the log density of each entry.
      noise: distribution of the noise: ``"normal"``, or ``"uniform"`` on (-1, 1).
      std: standard deviation of a sample of scale 1.
    """

    scale: Callable[[Array], Array]
    sample: Callable[[Array, Array, Array], Array]
    log_prob: Callable[[Array, Array, Array], Array]
    noise: str
    std: float = 1.0


def _softmax_scale(raw: Array) -> Array:
    """Return scales whose mean over entries is 1, up to a floor of 1e-6."""
    if not raw.shape[-1]:  # the softmax of zero entries is undefined
        return raw
    return raw.shape[-1] * jax.nn.softmax(raw, axis=-1) + 1e-6


def _laplace_sample(mean: Array, scale: Array, noise: Array) -> Array:
    return mean - scale * jnp.sign(noise) * jnp.log1p(-jnp.abs(noise))


def _normal_sample(mean: Array, scale: Array, noise: Array) -> Array:
    return mean + scale * noise


POSTERIORS = {
    "laplace_with_softmax": Posterior(_softmax_scale, _laplace_sample, _laplace, "uniform", 2**0.5),
    "normal": Posterior(lambda raw: jnp.exp(0.5 * raw), _normal_sample, _gaussian, "normal"),
    "normal_with_softplus": Posterior(lambda raw: jax.nn.softplus(raw) + 1e-6, _normal_sample, _gaussian, "normal"),
}
