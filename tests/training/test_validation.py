"""Held-out losses: each batch has noise of its own."""

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax import parallel
from sbm_jax.training.loop import _make_validate
from sbm_jax.types import Stage, TrainingConfig


def test_batches_do_not_share_their_noise():
    """The mean of 400 draws of unit noise has a spread of 0.05, in however many batches they are made."""

    def loss(params, upstream, key, batch):
        noise = jax.random.normal(key, (len(batch["x"]),)).mean()
        return noise, {}

    rows = {"x": np.zeros((400, 1), np.float32)}
    stage = Stage("noise", {}, lambda *_: {}, loss=loss, training=TrainingConfig(1, 8), validation_rows=lambda _: rows)
    mesh = parallel.data_mesh(jax.devices()[:1])
    means = [_make_validate(stage, {}, jax.random.key(seed), mesh)({"w": jnp.zeros(1)})["loss"] for seed in range(30)]
    assert 0.03 < np.std(means) < 0.08  # one key for all 50 batches gives 0.35
