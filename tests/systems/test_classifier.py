"""The classifiers that judge coherence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data import hide
from sbm_jax.errors import SbmError
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers, _moved
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
    config = ClassifierConfig(training, widths=(8, 16), dropout=0.0)
    judge = Classifiers((Modality("clip", (8, 8, 8, 1), 8, "mlp"),), {"label": 2}, config, 0)
    stage = judge.stage(Dataset(splits[0], splits[1], splits[1], {"label": 2}, {}))
    params = run_stages([stage], tmp_path, seed=0)["classifier"]
    seen = judge.predict_fn(params, "label")({"clip": clips[200:]})["clip"]
    assert np.mean(np.asarray(seen) == label[200:]) > 0.9


CLIPS = Modality("clip", (6, 4, 4, 1), 8, "mlp")
SOUND = Modality("sound", (12, 5, 1), 8, "mlp")


def test_series_are_judged_by_what_looks_at_moments():
    config = ClassifierConfig(widths=(4, 8), hidden=8, series={"sound": 2})
    judge = Classifiers((SOUND, CLIPS), {"label": 3, "colour": 4}, config)
    assert judge.groups == {"series of sound": ["sound"], "6x4x4x1": ["clip"]}
    params = judge._init(jax.random.key(0))
    data = {m.name: np.random.default_rng(0).random((5, *m.shape), dtype=np.float32) for m in (SOUND, CLIPS)}
    logits = judge.logits(params, data)
    for name in data:
        assert (logits["label"][name].shape, logits["colour"][name].shape) == ((5, 3), (5, 4))
        assert judge.features_fn(params, name)(data[name]).shape == (5, 16)


def test_rows_are_moved_in_time_and_not_changed():
    x = np.arange(1.0, 13.0).reshape(1, 12, 1).repeat(200, axis=0)
    moved = np.asarray(_moved(jax.random.key(0), jnp.asarray(x), 2))[:, :, 0]
    shifts = moved[:, 5] - 6
    assert set(shifts) == {-2, -1, 0, 1, 2}
    np.testing.assert_array_equal(moved, np.clip(np.arange(1, 13) + shifts[:, None], 1, 12))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({"sond": 1}, "classifier.series.*'sond'"),
        ({"sound": -1}, "classifier.series.sound"),
        ({"sound": 1.5}, "a whole number"),
    ],
)
def test_unknown_series_are_refused(series, message):
    with pytest.raises(SbmError, match=message):
        Classifiers((SOUND,), {"label": 2}, ClassifierConfig(series=series))
