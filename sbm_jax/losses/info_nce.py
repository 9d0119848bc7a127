"""Contrastive learning of one space for all modalities."""

import chex
import jax.numpy as jnp
import numpy as np
import optax

from sbm_jax.types import Array

MAX_LOG_SCALE = float(np.log(100.0))
"""The inverse temperature is kept below 100, as in the reference: beyond it training is unstable."""


def inverse_temperature(log_scale: Array) -> Array:
    """Return τ, at most 100."""
    return jnp.exp(jnp.minimum(log_scale, MAX_LOG_SCALE))


def has_pair(present: Array | None) -> Array | None:
    """Return which rows have two modalities or more, bool [B], given what is present, bool [B, M]; None for all."""
    return None if present is None else present.sum(axis=1) >= 2


def info_nce_terms(
    embeddings: Array, log_scale: Array, targets: Array | None = None, present: Array | None = None
) -> tuple[Array, Array]:
    """Return the loss of each row and how often its counterpart was found, [B] each.

    For every ordered pair of modalities (i, j), row b of i must find row b of j among all rows of the batch that have
    j: L = -log exp(τ e_i^b · e_j^b) / Σ_c exp(τ e_i^b · e_j^c), a mean over the pairs that the row has, 0 for none.

    Args:
      embeddings: unit vectors [B, M, E].
      log_scale: log τ, the logarithm of the inverse temperature, a scalar.
      targets: unit vectors [B, M, E], e_j where those that are sought are others; None for `embeddings`.
      present: bool [B, M], which modalities a row has; None for all.

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
    if present is not None:  # finite, for rows without j have no other logit
        logits = jnp.where(present[:, second].T[:, None], logits, -1e9)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    if present is None:
        return jnp.mean(loss, axis=0), jnp.mean(hits, axis=0)
    counted = (present[:, first] & present[:, second]).T
    count = jnp.maximum(counted.sum(axis=0), 1)
    return tuple(jnp.where(counted, values, 0.0).sum(axis=0) / count for values in (loss, hits))
