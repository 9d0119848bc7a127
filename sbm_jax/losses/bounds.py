"""Common parts of the multimodal VAE bounds: per-row terms, decoding, and the subsets of modalities.

Encoders return a Gaussian (or Laplace) expert for each modality; the methods differ in how they join the experts into
a posterior, and in the bound. Every bound takes its decoders as a `Decoding`, and its noise and choice of subsets as
arrays, so that recorded ones can be replayed.

Experts are stacked: means and log variances, or the raw scales of any family (`distributions.POSTERIORS`), [B, M, D].
`present` is bool [B, M], False where a row lacks a modality, which then enters neither posterior nor likelihood.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sbm_jax.types import Array, Modality

EXPERT_EPS = 1e-8
"""Added to the variance of each expert by the authors of MoPoE and MVTCAE."""

DECODED_AT_ONCE = 8192
"""Latents that a decoder decodes at a time."""

LogProbFn = Callable[[Mapping[str, Array], Array | int], Mapping[str, Array]]


@no_type_check  # the leaves of a pytree may be other than arrays, as under `jax.eval_shape`
class BoundTerms(flax.struct.PyTreeNode):
    """Per-row terms of a negative bound, [B] each; the loss of a row is their sum."""

    reconstruction: Array
    regulariser: Array

    @property
    def loss(self) -> Float[Array, " B"]:
        """The negative bound."""
        return self.reconstruction + self.regulariser


class Decoding(NamedTuple):
    """Computes the likelihood of data given latents.

    Attributes:
      modalities: modalities, in mask order.
      log_prob_fn: `({name: latents [..., B, ·]}, part) -> {name: log p(x_m | z) [..., B]}`, bound to its data. `part`
        numbers the chunks that latents are decoded in, so that stochastic decoders draw anew in each.
      rescaling: factor r_m of the log likelihood of each modality.
    """

    modalities: tuple[Modality, ...]
    log_prob_fn: LogProbFn
    rescaling: tuple[float, ...]

    def log_likelihood(self, z: Mapping[str, Array] | Array) -> Array:
        """Return r_m log p(x_m | z) as [..., B, M] for latents [..., B, D], shared by all modalities or by name."""
        latents = z if isinstance(z, Mapping) else {modality.name: z for modality in self.modalities}
        return jnp.stack(list(self.by_modality(latents).values()), axis=-1)

    def by_modality(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return r_m log p(x_m | z_m) as {name: [..., B]} for latents {name: [..., B, D]}, in mask order.

        Large batches of latents are decoded in chunks and recomputed for the gradient: M experts with K samples each
        give every decoder M K B latents, whose activations would not fit in memory.
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
    """Return max_n d_n / d_m for each modality of d_m entries, so that all modalities weigh the same."""
    sizes = [int(np.prod(modality.shape)) for modality in modalities]
    return tuple(max(sizes) / size for size in sizes)


def all_subsets(num_modalities: int) -> Bool[np.ndarray, "2**{num_modalities}-1 {num_modalities}"]:
    """Return the non-empty subsets of M modalities, ordered by size, then lexicographically."""
    members = itertools.chain.from_iterable(
        itertools.combinations(range(num_modalities), size) for size in range(1, num_modalities + 1)
    )
    return np.array([np.isin(np.arange(num_modalities), chosen) for chosen in members])


def sum_present(values: Float[Array, "*lead B M"], present: Bool[Array, "B M"]) -> Float[Array, "*lead B"]:
    """Sum values over the modalities that each row has."""
    return jnp.where(jnp.broadcast_to(present, values.shape), values, 0.0).sum(axis=-1)
