"""EB-MVAE: its objective where the answer is known, and its sampler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.losses.implicit_score_matching import TRACES, implicit_score_terms
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.eb_mvae import EbMvae, EbMvaeConfig
from sbm_jax.systems.score_stage import SbmConfig, ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.training.stages import fingerprints
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (Modality("left", (4,), 2, "mlp"), Modality("right", (4,), 1, "mlp"), Modality("top", (4,), 2, "mlp"))
CONFIG = SbmConfig(
    AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,))),
    ScoreConfig(TrainingConfig(2, 4), ScoreNetworkConfig("transformer", 32, 1)),
)
ENERGY = EbMvaeConfig(TrainingConfig(2, 4), width=32, depth=2)


def _split(rows, seed):
    rng = np.random.default_rng(seed)
    return Split({m.name: rng.normal(size=(rows, 4)).astype(np.float32) for m in MODALITIES})


DATASET = Dataset(_split(10, 0), _split(4, 1), _split(5, 2), {}, {})
VALID = np.array([[True, True], [True, False], [True, True]])


def _system(**changes):
    return EbMvae("eb_mvae", MODALITIES, CONFIG, energy=dataclasses.replace(ENERGY, **changes))


def _products(system):
    made = {}
    for stage in system.stages(DATASET):
        made[stage.name] = stage.init(jax.random.key(0), made)
    return made


def test_its_energy_is_trained_on_complete_rows():
    system, has = _system(), np.arange(10) % 3 > 0
    train = dataclasses.replace(
        DATASET.train, present={m.name: has if m.name == "left" else np.ones(10, bool) for m in MODALITIES}
    )
    *stages, energy = system.stages(DATASET._replace(train=train))
    made = {}
    for stage in stages:
        made[stage.name] = stage.init(jax.random.key(0), made)
    bank, rows = system.latent_space.bank(made, "train"), energy.rows(made)
    np.testing.assert_array_equal(rows["mean"], bank["mean"][has])
    train = dataclasses.replace(train, present={**train.present, "top": ~has})
    *stages, energy = system.stages(DATASET._replace(train=train))
    made[system.latent_space.bank_stage] = stages[-1].init(jax.random.key(0), made)
    with pytest.raises(SbmError, match="4 or more in the train split, which has 0"):
        energy.rows(made)


def _linear(matrix):
    """The score of N(0, -matrix⁻¹) over the valid entries."""
    index = np.flatnonzero(VALID)

    def score_fn(z):
        flat = z.reshape(len(z), -1)
        return jnp.zeros_like(flat).at[:, index].set(flat[:, index] @ matrix).reshape(z.shape)

    return score_fn


@pytest.mark.parametrize("trace", TRACES)
def test_the_objective_of_a_linear_score_is_known(trace):
    """tr(A) + ½ ‖z A‖², exactly or in the mean over directions."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5)) * 0.4
    matrix = jnp.asarray(-(root @ root.T) - np.eye(5), jnp.float32)
    z = jnp.asarray(np.where(VALID[None], rng.normal(size=(3, 3, 2)), 0.0), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 1 if trace == "exact" else 20_000)
    run = jax.jit(jax.vmap(lambda key: implicit_score_terms(_linear(matrix), key, z, VALID, trace)))
    found = np.asarray(run(keys))
    flat = np.asarray(z).reshape(3, -1)[:, np.flatnonzero(VALID)]
    expected = np.trace(matrix) + 0.5 * ((flat @ matrix) ** 2).sum(axis=1)
    error = 0.0 if trace == "exact" else 5 * found.std(axis=0).max() / np.sqrt(len(found))
    np.testing.assert_allclose(found.mean(axis=0), expected, rtol=1e-5, atol=error)


@pytest.mark.parametrize("form", ["field", pytest.param("energy", marks=pytest.mark.slow)])
def test_training_finds_the_score_of_a_gaussian(form):
    system = _system(form=form, width=64, trace="exact")
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    rng = np.random.default_rng(0)
    params = system.network.init(jax.random.key(0), jnp.zeros((1, 3, 2)))["params"]
    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)

    def loss(params, z):
        return implicit_score_terms(lambda z: system._score(params, z), jax.random.key(0), z, VALID, "exact").mean()

    @jax.jit
    def step(params, state, z):
        updates, state = optimizer.update(jax.grad(loss)(params, z), state)
        return optax.apply_updates(params, updates), state

    def draw(rows):
        z = rng.normal(size=(rows, 3, 2))
        z[:, :2, 0] = z[:, :2, 0] @ np.linalg.cholesky(covariance).T
        return jnp.asarray(np.where(VALID[None], z, 0.0), jnp.float32)

    for _ in range(600):
        params, state = step(params, state, draw(256))
    z = draw(400)
    expected = -np.asarray(z).copy()
    expected[:, :2, 0] = -np.asarray(z)[:, :2, 0] @ np.linalg.inv(covariance)
    found = np.asarray(system._score(params, z))
    assert np.square(found - expected).sum() < 0.1 * np.square(expected).sum()


def test_langevin_dynamics_draw_from_the_conditional(monkeypatch):
    """With the exact score of correlated Gaussians: moments of what is free, given the rest."""
    system = _system(num_steps=400, step_size=0.2)
    precision = np.eye(5)
    precision[0, 2] = precision[2, 0] = -0.6  # left[0] and right[0]
    score = _linear(jnp.asarray(-precision, jnp.float32))
    monkeypatch.setattr(EbMvae, "_score", lambda self, params, z: score(z))
    rows = 4000
    observed = np.broadcast_to([True, False, False], (rows, 3))
    z_observed = jnp.zeros((rows, 3, 2)).at[:, 0].set(jnp.array([1.5, -0.5]))
    given = {"strength": None, "observed": jnp.asarray(observed), "z_observed": z_observed, "embedding": None}
    given["row_numbers"] = jnp.arange(rows)
    products = {system.score_stage_name: {}}
    options = system.own_options(SamplerOptions())
    z = np.asarray(jax.jit(lambda key: system._sample(products, key, given, options).z)(jax.random.key(0)))
    np.testing.assert_array_equal(z[:, 0], np.asarray(z_observed)[:, 0])
    np.testing.assert_allclose(z[:, 1, 0].mean(), 0.9, atol=0.06)
    np.testing.assert_allclose(z[:, 1, 0].std(), 1.0, atol=0.06)
    np.testing.assert_allclose(z[:, 2].mean(axis=0), [0.0, 0.0], atol=0.06)
    np.testing.assert_array_equal(z[:, 1, 1], 0.0)  # padding


@pytest.mark.slow
def test_it_generates_whatever_the_solver_of_the_options():
    system = _system()
    products = _products(system)
    data = {name: jnp.asarray(values) for name, values in DATASET.test.data.items()}
    observed = jnp.array([True, False, False])
    first, second = (
        system.generate(products, jax.random.key(0), data, observed, SamplerOptions(num_steps=n)) for n in (3, 7)
    )
    assert int(first.info["network_evaluations"]) == 40
    jax.tree.map(np.testing.assert_array_equal, first.data, second.data)
    np.testing.assert_array_equal(first.data["left"][:, 0], data["left"])
    assert first.data["top"].shape == (5, 1, 4)


def test_the_sampler_is_no_part_of_the_training():
    ours, theirs = (fingerprints(_system(**c).stages(DATASET)) for c in ({}, {"num_steps": 7, "step_size": 0.1}))
    assert ours == theirs
    assert fingerprints(_system(trace="sliced").stages(DATASET)) != ours


def test_what_does_not_exist_is_refused():
    with pytest.raises(SbmError, match="Known: exact, hutchinson, sliced"):
        EbMvaeConfig(TrainingConfig(2, 4), trace="full")
