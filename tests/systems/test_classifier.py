"""The classifiers that judge coherence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.data import hide
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (Modality("left", (6,), 3, "mlp"), Modality("right", (6,), 3, "mlp"))
CLASSIFIERS = Classifiers(MODALITIES, 3, ClassifierConfig(TrainingConfig(2, 4), hidden=8, dropout=0.0), 0)


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
