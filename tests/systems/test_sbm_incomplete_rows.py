"""SBM systems on rows that lack modalities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data import hide
from sbm_jax.systems.latents import latent_statistics, valid_entries
from sbm_jax.systems.unimodal import LatentSpace
from tests.systems.sbm_cases import (
    DATASET,
    MODALITIES,
    MODALITY_NAMES,
    SYSTEMS,
    aligned_config,
)


def _lacking(other_values):
    """Rows that lack a third of their modalities, of which one holds other values where they do."""
    train, validation = (hide(split, 0.35, seed) for seed, split in enumerate((DATASET.train, DATASET.validation)))
    if other_values:
        train, validation = (
            dataclasses.replace(
                split,
                data={
                    name: np.where(has.reshape(-1, *[1] * (values.ndim - 1)), values, values[::-1])
                    for (name, values), has in zip(split.data.items(), split.present.values(), strict=True)
                },
            )
            for split in (train, validation)
        )
    return DATASET._replace(train=train, validation=validation)


def _made(system, dataset):
    """The products of all stages, trained ones of fresh parameters that are no zeros, and each one's gradient."""
    made, gradients, rng = {}, {}, np.random.default_rng(0)
    for stage in system.stages(dataset):
        made[stage.name] = stage.init(jax.random.key(0), made)
        if stage.training:
            noise = jax.tree.map(lambda p: 0.1 * rng.normal(size=p.shape).astype(np.float32), made[stage.name])
            made[stage.name] = jax.tree.map(jnp.add, made[stage.name], noise)
            rows = jax.tree.map(jnp.asarray, stage.rows(made))
            loss = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))
            gradients[stage.name] = loss(made[stage.name], made, jax.random.key(1), rows)
    return made, gradients


@pytest.mark.parametrize(
    "name", [pytest.param("sbm_vae_c", marks=pytest.mark.slow), "sbm_rae_t", "sbm_vae_f"]
)  # every kind of stage
def test_what_a_row_lacks_changes_nothing(name):
    system = SYSTEMS[name]
    first, second = (_made(system, _lacking(other_values)) for other_values in (False, True))
    assert not np.asarray(first[0][system.latent_space.bank_stage]["train"]["present"]).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, second)


@pytest.mark.parametrize("name", [pytest.param("sbm_vae_c", marks=pytest.mark.slow), "sbm_rae_t"])
@pytest.mark.slow
def test_rows_that_lack_nothing_are_as_without_a_mask(name):
    system = SYSTEMS[name]
    whole = dict.fromkeys(MODALITY_NAMES, True)
    marked = (
        dataclasses.replace(split, present={name: np.full(len(split), has) for name, has in whole.items()})
        for split in DATASET[:2]
    )
    train, validation = marked
    ours, theirs = _made(system, DATASET._replace(train=train, validation=validation)), _made(system, DATASET)
    for split in ("train", "validation"):
        del ours[0][system.latent_space.bank_stage][split]["present"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


def test_alignment_sees_only_what_rows_have():
    space = LatentSpace(MODALITIES, aligned_config())
    (training,) = space.trainings
    params = space.codecs.init(jax.random.key(0))
    rows = (jax.tree.map(jnp.asarray, space.rows(_lacking(other).train)) for other in (False, True))
    losses = [training.loss(params, {}, jax.random.key(1), batch) for batch in rows]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *losses)


def test_statistics_are_of_the_rows_that_have_a_modality():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(2.0, 1.5, (200, 3, 4)), rng.uniform(0.1, 1.0, (200, 3, 4))
    present = rng.random((200, 3)) < [0.3, 1.0, 0.7]
    valid = valid_entries(MODALITIES)
    found = latent_statistics(*(jnp.asarray(array) for array in (mean, std, valid, present)))
    for m in range(3):
        own = latent_statistics(*(jnp.asarray(array) for array in (mean[present[:, m]], std[present[:, m]], valid)))
        np.testing.assert_allclose(found.mean[m], own.mean[m], rtol=1e-4)
        np.testing.assert_allclose(found.std[m], own.std[m], rtol=1e-4)
        block = np.arange(4 * m, 4 * m + 4)
        np.testing.assert_allclose(
            found.correlation[np.ix_(block, block)], own.correlation[np.ix_(block, block)], atol=1e-4
        )
    assert np.linalg.eigvalsh(found.correlation).min() > -1e-5
