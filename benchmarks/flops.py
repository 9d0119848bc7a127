"""The cost of a training step of a score network."""

import dataclasses

import jax
import jax.numpy as jnp

from sbm_jax.experiment_config import ExperimentConfig, make_system


def flops_per_step(config: ExperimentConfig) -> float:
    """Return the floating-point operations of one optimiser step: three times those of the network on a batch.

    XLA counts them before optimisation, and convolutions as such, whatever form they are computed in.
    """
    system = make_system(config, "sbm_vae")
    model, context = system.score_model, system.context(config.score.training.batch_size)
    if config.score.network.name == "unet":
        model = dataclasses.replace(model, network=model.network.clone(conv_mode="conv"))
    params = jax.eval_shape(model.init, jax.random.key(0), context)
    z = jnp.zeros((len(context.observed), *context.valid.shape))
    lowered = jax.jit(model.noise).lower(params, z, jnp.zeros(context.observed.shape), context)
    return 3 * lowered.cost_analysis()["flops"]
