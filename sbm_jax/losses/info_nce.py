"""Contrastive learning of one embedding space for all modalities (InfoNCE)."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from sbm_jax.types import Array

MAX_LOG_SCALE = float(np.log(100.0))
"""The inverse temperature is clipped to 100, as in the reference: training is unstable above it."""


def inverse_temperature(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Return the inverse temperature τ, clipped to at most 100, given log τ."""
    return jnp.exp(jnp.minimum(log_scale, MAX_LOG_SCALE))


def has_pair(present: Bool[Array, "B M"] | None) -> Bool[Array, " B"] | None:
    """Return True for rows with two or more present modalities; None if `present` is None."""
    return None if present is None else present.sum(axis=1) >= 2


def info_nce_terms(
    embeddings: Float[Array, "B M E"],
    log_scale: Float[Array, ""],
    targets: Float[Array, "B M E"] | None = None,
    present: Bool[Array, "B M"] | None = None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return the InfoNCE loss and the retrieval accuracy of each row.

    For every ordered pair of modalities (i, j), row b of i must retrieve row b of j among all rows of the batch that
    have j: L = -log exp(τ e_i^b · e_j^b) / Σ_c exp(τ e_i^b · e_j^c), averaged over the row's pairs; 0 without a pair.

    Args:
      embeddings: unit vectors.
      log_scale: log τ, the logarithm of the inverse temperature.
      targets: unit vectors to retrieve, used for e_j; None for `embeddings`.
      present: the modalities that each row has; None for all.

    Reference: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
      section 2.3. https://arxiv.org/abs/2103.00020
    """
    chex.assert_rank(embeddings, 3)
    targets = embeddings if targets is None else targets
    batch, num_modalities, _ = embeddings.shape
    first, second = np.nonzero(~np.eye(num_modalities, dtype=bool))
    similarity = jnp.einsum("bpe,cpe->pbc", embeddings[:, first], targets[:, second], precision="highest")
    labels = jnp.broadcast_to(jnp.arange(batch)[None], (len(first), batch))
    logits = inverse_temperature(log_scale) * similarity
    if present is not None:  # finite, because a batch may have no row with j
        logits = jnp.where(present[:, second].T[:, None], logits, -1e9)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    if present is None:
        return jnp.mean(loss, axis=0), jnp.mean(hits, axis=0)
    counted = (present[:, first] & present[:, second]).T
    count = jnp.maximum(counted.sum(axis=0), 1)
    loss, hits = (jnp.where(counted, values, 0.0).sum(axis=0) / count for values in (loss, hits))
    return loss, hits
