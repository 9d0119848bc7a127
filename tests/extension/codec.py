"""A codec of a third party, in one file: linear maps both ways, without a neural network."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.types import Modality


@checked_dataclass
class LinearOptions:
    """Options of `Linear`.

    Attributes:
      noise: the standard deviation of the data around what is decoded.
    """

    noise: float = 0.5

    def __post_init__(self):
        require(self.noise > 0, "codec.network.noise", self.noise, "a positive number")


@dataclasses.dataclass(frozen=True)
class Linear:
    """x = z W + b + noise, and a posterior that is linear in x with one variance for each entry of z."""

    Options: ClassVar[type] = LinearOptions

    modality: Modality
    options: LinearOptions

    def init(self, key):
        """Return fresh parameters."""
        size, entries = self.modality.latent_size, math.prod(self.modality.shape)
        down, up = jax.random.split(key)
        return {
            "encoder": {
                "weights": jax.random.normal(down, (entries, size)) / entries**0.5,
                "bias": jnp.zeros(size),
                "log_variance": jnp.zeros(size),
            },
            "decoder": {"weights": jax.random.normal(up, (size, entries)) / size**0.5, "bias": jnp.zeros(entries)},
        }

    def encode(self, params, x):
        """Return mean and log variance."""
        own = params["encoder"]
        mean = x.reshape(len(x), -1) @ own["weights"] + own["bias"][None]
        return mean, jnp.broadcast_to(own["log_variance"][None], mean.shape)

    def decode(self, params, z):
        """Return the mean of the data, flat."""
        return z @ params["decoder"]["weights"] + params["decoder"]["bias"][None]

    def loss(self, params, key, x, output):
        """Return -log p(x | z)."""
        standardised = (x.reshape(len(x), -1) - output) / self.options.noise
        constant = jnp.log(self.options.noise) + 0.5 * jnp.log(2 * jnp.pi)
        return (0.5 * jnp.square(standardised) + constant).sum(axis=-1)

    def sample(self, params, key, output):
        """Return a draw of the data."""
        drawn = output + self.options.noise * jax.random.normal(key, output.shape)
        return jnp.clip(drawn, *self.modality.bounds).reshape(-1, *self.modality.shape)
