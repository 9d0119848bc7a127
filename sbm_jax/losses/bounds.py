"""What the bounds of the multimodal VAEs share: per-row terms, decoding, and the subsets of modalities.

Encoders give a Gaussian (or Laplace) expert for each modality; the methods differ in how they join these to a
posterior, and in the bound. Every bound takes its noise and its choices of subsets as arrays, so that recorded ones
can be replayed, and decoders as a `Decoding`.

Experts are stacked: means and log variances, or the raw scales of any family (`distributions.POSTERIORS`), [B, M, D];
`present` is bool [B, M], False where a row lacks a modality, which then enters no posterior and no likelihood.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.types import Array, Modality

EXPERT_EPS = 1e-8
"""Added to the variance of each expert by the authors of MoPoE and MVTCAE."""

DECODED_AT_ONCE = 8192
"""Latents that each decoder is given at a time."""

LogProbFn = Callable[[Mapping[str, Array], Array | int], Mapping[str, Array]]


@flax.struct.dataclass
class BoundTerms:
    """Per-row terms of a negative bound, [B] each: the loss of a row, and the two parts that it is the sum of."""

    reconstruction: Array
    regulariser: Array

    @property
    def loss(self) -> Array:
        """The negative bound [B]."""
        return self.reconstruction + self.regulariser


class Decoding(NamedTuple):
    """How a likelihood is had from latents.

    Attributes:
      modalities: the modalities, in the order of every mask.
      log_prob_fn: `({name: latents [..., B, ·]}, part) -> {name: log p(x_m | z) [..., B]}`, of data that it knows.
        Where latents are decoded a part at a time, each part has a number, for decoders that draw.
      rescaling: a factor for the log likelihood of each modality.
    """

    modalities: tuple[Modality, ...]
    log_prob_fn: LogProbFn
    rescaling: tuple[float, ...]

    def log_likelihood(self, z: Mapping[str, Array] | Array) -> Array:
        """Return r_m log p(x_m | z) as [..., B, M] for latents [..., B, D], the same for all modalities or by name."""
        latents = z if isinstance(z, Mapping) else {modality.name: z for modality in self.modalities}
        return jnp.stack(list(self.by_modality(latents).values()), axis=-1)

    def by_modality(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return r_m log p(x_m | z_m) as {name: [..., B]} for latents {name: [..., B, D]}, in the masks' order.

        Many latents of each row are decoded a part at a time, and again for the gradient: M experts with K samples each
        make M K B of them for every decoder, whose activations no memory holds.
        """
        lead, batch = next(iter(latents.values())).shape[:-2], next(iter(latents.values())).shape[-2]
        at_once = max(1, DECODED_AT_ONCE // batch)
        alike = all(array.shape[:-2] == lead for array in latents.values())
        if math.prod(lead) <= at_once or not alike:
            return self._by_modality(latents, 0)
        flat = {name: array.reshape(-1, *array.shape[-2:]) for name, array in latents.items()}
        parts = flat, jnp.arange(math.prod(lead))
        terms = jax.lax.map(jax.checkpoint(lambda part: self._by_modality(*part)), parts, batch_size=at_once)
        return {name: array.reshape(*lead, batch) for name, array in terms.items()}

    def _by_modality(self, latents: Mapping[str, Array], part: Array | int) -> dict[str, Array]:
        terms = self.log_prob_fn(latents, part)
        names = [modality.name for modality in self.modalities]
        return {name: factor * terms[name] for name, factor in zip(names, self.rescaling, strict=True)}


def likelihood_rescaling(modalities: Sequence[Modality]) -> tuple[float, ...]:
    """Return the largest number of entries over the own one, for each modality, so that all weigh the same."""
    sizes = [int(np.prod(modality.shape)) for modality in modalities]
    return tuple(max(sizes) / size for size in sizes)


def all_subsets(num_modalities: int) -> np.ndarray:
    """Return bool [2^M - 1, M], the non-empty subsets by size, then lexicographically."""
    members = itertools.chain.from_iterable(
        itertools.combinations(range(num_modalities), size) for size in range(1, num_modalities + 1)
    )
    return np.array([np.isin(np.arange(num_modalities), chosen) for chosen in members])


def sum_present(values: Array, present: Array) -> Array:
    """Sum [..., B, M] over the modalities that a row has, bool [B, M]."""
    return jnp.where(jnp.broadcast_to(present, values.shape), values, 0.0).sum(axis=-1)
