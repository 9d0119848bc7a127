"""What cannot be run on this machine is at least compiled for: every step and sampler lowers for TPU and CUDA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import parallel
from sbm_jax.experiment import make_classifiers, make_matcher, make_readers
from sbm_jax.experiment_config import apply_changes, make_system, parse_config
from sbm_jax.training import loop
from sbm_jax.types import Dataset, Split
from tests.test_configs import load_config, parse_complete


def _dataset(config, num_rows):
    """Rows of zeros in the shapes of a config."""
    data = {
        m.name: np.zeros((num_rows, *m.shape), np.int32 if m.vocabulary_size else np.uint8) for m in config.modalities
    }
    split = Split(data, {"label": np.zeros(num_rows, np.int32)})
    return Dataset(split, split, split, {"label": 10}, {})


def _abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _random(leaf):
    return np.random.default_rng(0).uniform(0.1, 1.0, leaf.shape).astype(leaf.dtype)


def _export(compiled, *arguments):
    platform = {"tpu": "tpu", "gpu": "cuda"}[jax.default_backend()]
    exported = jax.export.export(compiled, platforms=[platform])(*arguments)
    assert exported.platforms == (platform,)
    assert exported.nr_devices == jax.device_count() > 1


def _check(config):
    """Lower every training step, and every sampler given one modality and given nothing, on several devices."""
    trained = (config.autoencoder, config.score, config.classifier, *config.readers, config.matcher)
    sizes = [stage.training.batch_size for stage in trained if stage is not None]
    dataset, key = _dataset(config, 2 * max(sizes)), jax.random.key(0)
    systems = [make_system(config, name) for name in config.systems]
    classifiers = make_classifiers(config, dataset)
    stages = {stage.name: stage for system in systems for stage in system.stages(dataset)}
    judges = [*filter(None, [classifiers]), *make_readers(config), *filter(None, [make_matcher(config)])]
    stages |= {judge.stage_name: judge.stage(dataset) for judge in judges}
    products, mesh = {}, parallel.data_mesh()
    for stage in stages.values():
        upstream = {name: products[name] for name in stage.requires}
        if not stage.training and not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(upstream)):
            products[stage.name] = stage.init(key, upstream)
            continue
        if stage.name.endswith("_mixture"):  # fitted on the host
            upstream = jax.tree.map(_random, upstream)
            products[stage.name] = _abstract(stage.init(key, upstream))
            continue
        products[stage.name] = jax.eval_shape(stage.init, key, upstream)
        if stage.training:
            state = jax.eval_shape(
                lambda key, upstream, stage=stage: loop.init_state(stage, key, upstream), key, upstream
            )
            rows = jax.eval_shape(stage.rows, upstream) if stage.requires else stage.rows({})
            rows = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), rows)
            feed = parallel.Feed(rows, mesh)
            batch = jax.ShapeDtypeStruct((stage.training.steps_per_dispatch, stage.training.batch_size), jnp.int32)
            _export(loop.make_train_steps(stage, feed), state, upstream, _abstract(rows), batch, key)
    names = [modality.name for modality in config.joint_modalities]
    given = {m.name: np.zeros((8, *m.shape), m.dtype) for m in config.joint_modalities}
    observed = np.broadcast_to(np.arange(len(names)) == 0, (8, len(names)))
    for system in systems:

        @parallel.over_rows
        def generate(whole, rows, system=system):
            return system.generate(*whole, *rows, config.sampler).data

        used = {name: products[name] for name in system.stage_names}
        for data in (given, {}):
            _export(generate, (used, key), (data, observed))


REPRESENTATIVE = ("quickstart.py:all", "polymnist.py:five,paper", "quickstart.py:square")
"""Of all systems, of the paper's networks and sampler, and of latents that make a square."""

VARIANTS = ("", ":table", ":paper", ":best", ":eb_mvae", ":five,diff_mvae")
FACES = ("celebamask_hq.py:table", "celebamask_hq.py:paper,table")
OTHERS = ("quickstart.py", *(f"polymnist.py{variant}" for variant in VARIANTS), *FACES, "cub.py", "grid.py:table")
"""With the ones above, those of each kind: configs that are not here change numbers of steps or modalities."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tpu", "gpu"])
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_steps_and_samplers_lower(monkeypatch, name, backend):
    _check_on(monkeypatch, name, backend)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", ["tpu", "gpu"])
@pytest.mark.parametrize("name", OTHERS)
def test_steps_and_samplers_of_the_other_configs_lower(monkeypatch, name, backend):
    _check_on(monkeypatch, name, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tpu", "gpu"])
@pytest.mark.parametrize("solver", ["dpm_solver_pp_2m", "euler_maruyama"])
def test_diffusion_decoders_lower(monkeypatch, solver, backend):
    """Over frozen latents by a UNet, and trained end to end by a patch network."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = parse_config(load_config("quickstart.py:smoke"))
    sampler = {"solver": solver, "num_steps": 2000}
    changes = {
        "systems": ("sbm_vae_m_diffusion", "diff_mvae"),
        "methods.diffusion_decoder.decoder.network.name": "unet",
        "methods.diffusion_decoder.decoder.sampler": sampler,
        "methods.diff_mvae.codec": {"decoder": {"sampler": sampler}},
    }
    _check(apply_changes(config, changes))


def test_a_step_and_a_sampler_lower_on_tpu(monkeypatch):
    """One system of the quickstart, smaller."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    config = parse_config(load_config("quickstart.py:smoke"))
    _check(apply_changes(config, {"systems": ("sbm_vae",)}))


def _check_on(monkeypatch, name, backend):
    """With the forms of convolutions and loops that are chosen on that backend."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = parse_complete(name)
    for changes in ({}, *(variation.changes for variation in config.variations)):
        _check(apply_changes(config, changes))
