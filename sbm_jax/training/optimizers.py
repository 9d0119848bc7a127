"""Builds optax optimisers from an `OptimizerConfig`."""

from collections.abc import Callable

import jax
import optax

from sbm_jax.errors import unknown
from sbm_jax.types import OptimizerConfig, Params

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, max(steps, 1)),
}

_DECAYED = "kernel"
"""Only parameters of this name decay: weights of dense layers and convolutions, not biases, norm scales or priors."""


def learning_rate(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Return the learning-rate schedule, with a linear warm-up if configured.

    Raises:
      SbmError: if the schedule is unknown.
    """
    if config.schedule not in SCHEDULES:
        raise unknown("learning-rate schedule", config.schedule, SCHEDULES)
    after = SCHEDULES[config.schedule](config.learning_rate, num_steps - config.warmup_steps)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def _decayed(params: Params) -> Params:
    def is_decayed(path, _):
        return path[-1].key == _DECAYED

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Return Adam(W) with the configured gradient clipping, schedule and weight decay.

    Raises:
      SbmError: if the schedule is unknown.
    """
    schedule = learning_rate(config, num_steps)
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, optax.adamw(schedule, weight_decay=config.weight_decay, mask=_decayed))
