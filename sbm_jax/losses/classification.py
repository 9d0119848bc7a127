"""Cross-entropy loss of a classifier."""

import jax.numpy as jnp
import optax

from sbm_jax.types import Array


def cross_entropy_terms(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the per-row cross-entropy [B] and accuracy (0 or 1) [B] of logits [B, K] for int labels [B]."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss, (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
