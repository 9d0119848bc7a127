"""The classifiers that judge coherence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data import hide
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.training.stages import run_stages
from sbm_jax.types import Dataset, Modality, OptimizerConfig, Split, TrainingConfig

MODALITIES = (Modality("left", (6,), 3, "mlp"), Modality("right", (6,), 3, "mlp"))
CLASSIFIERS = Classifiers(MODALITIES, {"label": 3}, ClassifierConfig(TrainingConfig(2, 4), hidden=8, dropout=0.0), 0)


def _split(num_rows):
    rng = np.random.default_rng(0)
    data = {m.name: rng.normal(size=(num_rows, *m.shape)).astype(np.float32) for m in MODALITIES}
    return Split(data, {"label": rng.integers(0, 3, num_rows).astype(np.int32)})


def test_what_a_row_lacks_is_not_learned_from():
    split = hide(_split(40), 0.5, 0)
    other = {name: np.where(split.present[name][:, None], array, 7.0) for name, array in split.data.items()}
    losses = []
    for changed in (split, dataclasses.replace(split, data=other)):
        stage = CLASSIFIERS.stage(Dataset(changed, changed, changed, {"label": 3}, {}))
        params = stage.init(jax.random.key(0), {})
        rows = jax.tree.map(jnp.asarray, stage.rows({}))
        losses.append(stage.loss(params, {}, jax.random.key(1), rows)[0])
    assert not split.present["left"].all()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.slow
def test_of_videos_it_sees_in_which_order_things_happen(tmp_path):
    """A dot lights up left and then right, or the other way round: no frame tells, nor do all without their order."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 240).astype(np.int32)
    clips = rng.uniform(0, 0.2, (240, 8, 8, 8, 1)).astype(np.float32)
    for row, is_late in enumerate(label):
        first, second = sorted(rng.choice(8, 2, replace=False))
        clips[row, second if is_late else first, 2:5, 1:3] = 1.0
        clips[row, first if is_late else second, 2:5, 5:7] = 1.0
    splits = [Split({"clip": clips[rows]}, {"label": label[rows]}) for rows in (slice(0, 200), slice(200, 240))]
    training = TrainingConfig(150, 32, OptimizerConfig(3e-3), steps_per_dispatch=50)
    config = ClassifierConfig(training, widths=(8, 16), hidden=32, dropout=0.0)
    judge = Classifiers((Modality("clip", (8, 8, 8, 1), 8, "mlp"),), {"label": 2}, config, 0)
    stage = judge.stage(Dataset(splits[0], splits[1], splits[1], {"label": 2}, {}))
    params = run_stages([stage], tmp_path, seed=0)["classifier"]
    seen = judge.predict_fn(params, "label")({"clip": clips[200:]})["clip"]
    assert np.mean(np.asarray(seen) == label[200:]) > 0.9
