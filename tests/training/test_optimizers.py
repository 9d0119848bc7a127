"""What weight decay acts on."""

import jax
import jax.numpy as jnp
import optax

from sbm_jax.training.optimizers import make_optimizer
from sbm_jax.types import OptimizerConfig


def test_only_matrices_and_convolutions_decay():
    """Temperatures and the scales of trained priors are no weights, and must not be drawn to 0."""
    names = ("kernel", "bias", "scale", "identity", "log_scale", "prior", "private_priors")
    params = {"part": {name: jnp.ones((2, 3)) for name in names}}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5), 10)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)["part"]
    assert [name for name in names if (after[name] != 1).any()] == ["kernel"]
