"""Parameterizations of diffusion networks: what their output predicts, and how to convert it to noise or a score.

Shared by score models of latents and of data: arrays may have any shape that α and σ broadcast to. With
z_t = α z_0 + σ ε and s = sqrt(α² + σ²), the network's input is z_t / s, which has unit variance under every process,
and its output predicts, by name:

  ``"noise"``: ε.
  ``"velocity"``: v = (α ε - σ z_0) / s, which keeps few-step samplers accurate in the first steps, where α is near 0.
  ``"data"``: z_0.
  ``"score"``: -ε / σ, the score itself, as in the authors' code.

Reference: T. Salimans and J. Ho, "Progressive Distillation", 2022, section 4 and appendix D.
  https://arxiv.org/abs/2202.00512
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from sbm_jax.errors import unknown
from sbm_jax.types import Array


def scaled(z: Array, alpha: Array, sigma: Array) -> Array:
    """Scale diffused data z_t to the network's input, z_t / s."""
    return z / jnp.sqrt(alpha**2 + sigma**2)


def _from_velocity(output: Array, given: Array, alpha: Array, sigma: Array) -> Array:
    return (sigma * given + alpha * output) / jnp.sqrt(alpha**2 + sigma**2)


def _from_data(output: Array, given: Array, alpha: Array, sigma: Array) -> Array:
    # Clean entries have σ = 0. Their noise is not used, but its derivatives must be finite.
    return (jnp.sqrt(alpha**2 + sigma**2) * given - alpha * output) / jnp.where(sigma > 0, sigma, 1.0)


_TO_NOISE: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "noise": lambda output, given, alpha, sigma: output,
    "velocity": _from_velocity,
    "data": _from_data,
    "score": lambda output, given, alpha, sigma: -sigma * output,
}

PREDICTIONS = tuple(_TO_NOISE)


@dataclasses.dataclass(frozen=True)
class Parameterization:
    """Converts a network's output to noise or a score.

    Attributes:
      prediction: what the network predicts, one of `PREDICTIONS`.

    Raises:
      SbmError: on an unknown prediction.
    """

    prediction: str = "velocity"

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise unknown("prediction", self.prediction, PREDICTIONS)

    def noise(self, output: Array, given: Array, alpha: Array, sigma: Array) -> Array:
        """Return the predicted noise ε̂.

        Args:
          output: the network's output.
          given: z_t / s, the network's input.
          alpha: α.
          sigma: σ.
        """
        return _TO_NOISE[self.prediction](output, given, alpha, sigma)

    def score(self, output: Array, given: Array, alpha: Array, sigma: Array) -> Array:
        """Return the predicted score -ε̂ / σ; see `noise`."""
        return -self.noise(output, given, alpha, sigma) / sigma
