"""Cross-entropy loss of a classifier."""

import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from sbm_jax.types import Array


def cross_entropy_terms(
    logits: Float[Array, "B K"], labels: Int[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return the cross-entropy and the accuracy (0 or 1) of each row."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss, (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
