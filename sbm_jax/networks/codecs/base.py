"""The interface of codecs, and the base class of those with a feed-forward decoder."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import LIKELIHOODS, sum_over_entries
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.types import Array, Key, Modality, Params


@checked_dataclass
class AutoencoderNetworkConfig:
    """Sizes of the encoders and decoders of all codecs that do not set their own.

    Attributes:
      widths: channels before each halving of the map (residual_conv), channels of each residual convolution, all equal
        (patch), or units of each hidden layer (mlp).
      dtype: type of the convolutions' operands, ``"float32"`` or ``"bfloat16"``; parameters, norms and the decoders'
        last layers stay float32, because bfloat16 cannot distinguish adjacent grey levels near 1.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    dtype: str = "float32"

    def __post_init__(self):
        positive = bool(self.widths) and min(self.widths) >= 1
        require(positive, "codec network: widths", self.widths, "one or more positive sizes")
        known = self.dtype in ("float32", "bfloat16")
        require(known, "codec network: dtype", self.dtype, "'float32' or 'bfloat16'")


class Codec(Protocol):
    """Maps one modality to latents and back, by pure functions.

    Implementations are frozen dataclasses, created by ``CODEC(modality, options)``; ``CODEC.Options`` is the dataclass
    of their options. Parameters are a dictionary: ``"encoder"`` belongs to the encoder, all other entries to the
    decoder.
    """

    Options: ClassVar[type]
    modality: Modality
    options: Any

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of data [B, *shape] of the modality's `dtype`."""

    def decode(self, params: Params, z: Array) -> Array:
        """Map latents [B, D_m] to the raw output [B, ...] of a network, which `loss` and `sample` take."""

    def loss(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Return -log p(x | z) [B] of data [B, *shape], in nats, or an upper bound, given the raw output."""

    def sample(self, params: Params, key: Key, output: Array) -> Array:
        """Sample data [B, *shape] given the raw output; the caller clips them to the modality's bounds.

        Where the output is not finite, neither are the data; ids are -1 there.
        """


@runtime_checkable
class HasEncoder(Protocol):
    """A codec whose encoder is a module, [B, *shape] -> two arrays [B, D_m]."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""


@runtime_checkable
class Bounds(Protocol):
    """A codec whose training loss is a surrogate for -log p(x | z), and whose `bound` is an upper bound on it."""

    def loss(self, params: Params, key: Key, x: Array, output: Array, train: bool = True) -> Array:
        """Return the training loss [B]; see `Codec.loss`. With `train` False, there is no dropout."""

    def bound(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Return an upper bound on -log p(x | z) [B] of data [B, *shape], in nats, given the raw output."""


@runtime_checkable
class Draws(Protocol):
    """A codec that samples data step by step.

    Attributes:
      evaluations: network evaluations per row.
    """

    evaluations: int

    def sample(self, params: Params, key: Key, output: Array, row_numbers: Array | None = None) -> Array:
        """Sample data [B, *shape]; see `Codec.sample`.

        A row's noise depends on its number in `row_numbers`, int [B], but not on other rows; None for 0 to B - 1.
        """


@runtime_checkable
class Pretrained(Protocol):
    """A codec with some or all of its parameters from files.

    Attributes:
      files: {option: path} of the files that its options name; {} for none.
      frozen: parts that are not trained; () for none.
      is_frozen: whether all parts are frozen.
    """

    files: Mapping[str, str]
    frozen: tuple[str, ...]
    is_frozen: bool

    def read(self) -> Params:
        """Read the subset of the parameters of `init` that the files contain.

        Raises:
          SbmError: if a file cannot be read, or belongs to another network.
        """


class Heads(nn.Module):
    """Maps a flat feature vector to the mean and log variance of the posterior."""

    latent_size: int

    @nn.compact
    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Map [B, F] to two arrays [B, D_m]; log variances are clipped to [-12, 6]."""
        features = features.astype(jnp.float32)
        log_variance = nn.Dense(self.latent_size, kernel_init=nn.initializers.normal(1e-3))(features)
        return nn.Dense(self.latent_size)(features), jnp.clip(log_variance, -12.0, 6.0)


# MARK: Calibration

FIRST_SCALE = 0.5**0.5
"""Initial value of a learned scale, for which the Gaussian loss is the squared error."""

LEAST_SCALE = 1e-3
"""Lower bound on learned scales, a quarter of a grey level; noiseless data would drive them to 0."""

SCALE_RATE = 10.0
"""Ratio of the logarithm of a scale to its parameter. Adam moves every parameter by about the learning rate per step,
so a plain logarithm, which must change by a few units, would take thousands of steps."""


def learned_scale(parameter: Array, num_entries: int) -> Array:
    """Return the scale that a scalar parameter represents.

    Its gradient is divided by the number of data entries, over which the likelihood's gradient is summed. Adam is
    invariant to this factor, but without it the parameter would dominate the global norm in gradient clipping.
    """
    raised = SCALE_RATE * parameter
    slow = raised / num_entries
    return LEAST_SCALE + jnp.exp(jax.lax.stop_gradient(raised - slow) + slow)


def check_likelihood(modality: Modality) -> None:
    """Raise `SbmError` for an unknown likelihood, or bounds outside its range."""
    if modality.likelihood not in LIKELIHOODS:
        raise unknown(f"likelihood of modality {modality.name!r}:", modality.likelihood, LIKELIHOODS)
    bounded = LIKELIHOODS[modality.likelihood].bounded
    if bounded and modality.bounds and not 0 <= modality.bounds[0] < modality.bounds[1] <= 1:
        raise SbmError(
            f"modality {modality.name!r}: bounds {modality.bounds} leave [0, 1], the range of the "
            f"{modality.likelihood} likelihood. Leave out bounds, or choose another likelihood."
        )


# MARK: Feed-forward decoders


@dataclasses.dataclass(frozen=True)
class FeedForward(abc.ABC):
    """A codec whose decoder returns the parameters of the modality's likelihood in one pass.

    If the likelihood has a scale that the modality does not set, it is learned by maximum likelihood as one more
    parameter of the decoder, shared by all entries.

    Subclasses define `encoder`, [B, *shape] -> two arrays [B, D_m], and `decoder`, [B, D_m] -> [B, *shape].

    Attributes:
      modality: the modality to encode.
      options: sizes of the networks.

    Reference: O. Rybkin, K. Daniilidis and S. Levine, "Simple and Effective VAE Training with Calibrated Decoders",
      2021. https://arxiv.org/abs/2006.13202
    """

    Options: ClassVar[type] = AutoencoderNetworkConfig

    modality: Modality
    options: Any

    def __post_init__(self):
        modality = self.modality
        if modality.vocabulary_size:
            raise SbmError(
                f"modality {modality.name!r} has ids (vocabulary_size {modality.vocabulary_size}), but the codec "
                f"{modality.codec.name!r} encodes numbers. Use the codec 'tokens'."
            )
        check_likelihood(modality)

    @property
    @abc.abstractmethod
    def encoder(self) -> nn.Module:
        """The encoder's module."""

    @property
    @abc.abstractmethod
    def decoder(self) -> nn.Module:
        """The decoder's module."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the scale of the likelihood is learned."""
        return self.modality.scale is None and LIKELIHOODS[self.modality.likelihood].has_scale

    def init(self, key: Key) -> Params:
        """Return fresh parameters of the encoder, the decoder and, if it is learned, the scale."""
        keys = jax.random.split(key)
        x, z = jnp.zeros((1, *self.modality.shape)), jnp.zeros((1, self.modality.latent_size))
        params = {
            "encoder": self.encoder.init(keys[0], x)["params"],
            "decoder": self.decoder.init(keys[1], z)["params"],
        }
        if self.is_calibrated:
            params["scale"] = jnp.float32(math.log(FIRST_SCALE) / SCALE_RATE)
        return params

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of data [B, *shape]."""
        x = LIKELIHOODS[self.modality.likelihood].features(x)
        return self.encoder.apply({"params": params["encoder"]}, x)

    def decode(self, params: Params, z: Array) -> Array:
        """Return the raw output [B, *shape] for latents [B, D_m]."""
        return self.decoder.apply({"params": params["decoder"]}, z)

    def scale(self, params: Params) -> Array | float | None:
        """Return the scale of the likelihood; None if the likelihood has no scale and the modality sets none."""
        if not self.is_calibrated:
            return self.modality.scale
        return learned_scale(params["scale"], math.prod(self.modality.shape))

    def loss(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Return -log p(x | z) [B] of data [B, *shape], in nats, given the raw output."""
        del key
        return -sum_over_entries(LIKELIHOODS[self.modality.likelihood].log_prob(x, output, self.scale(params)))

    def sample(self, params: Params, key: Key, output: Array) -> Array:
        """Return the expected data [B, *shape] given the raw output, without sampling."""
        del params, key
        return LIKELIHOODS[self.modality.likelihood].mean(output)
