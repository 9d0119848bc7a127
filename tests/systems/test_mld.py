"""MLD: its network, its samplers, and what it shares with SBM-RAE."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.method import Shared
from sbm_jax.systems.mld import METHODS, Mld, MldConfig, mld_parts
from sbm_jax.systems.score_stage import ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.types import CodecConfig, Dataset, Modality, Split, TrainingConfig

MODALITIES = (Modality("left", (6,), 3, "mlp"), Modality("right", (4,), 2, "mlp"))
OPTIONS = SamplerOptions(num_steps=3, divergence_bound=1e6)  # without a score, z grows as it is sampled
AUTOENCODER = AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((16,)))


def _system(**own):
    mld = MldConfig(TrainingConfig(2, 4), ScoreNetworkConfig("mlp_unet", 32, 1), **own)
    return Mld("mld", MODALITIES, mld_parts(AUTOENCODER, mld), regularised=True, mld=mld)


def _split(num_rows, seed):
    rng = np.random.default_rng(seed)
    return Split({m.name: rng.normal(size=(num_rows, *m.shape)).astype(np.float32) for m in MODALITIES})


DATASET = Dataset(_split(10, 0), _split(4, 1), _split(5, 2), {}, {})


def _products(system):
    made = {}
    for stage in system.stages(DATASET):
        made[stage.name] = stage.init(jax.random.key(0), made)
    return made


def test_its_stages_are_its_own():
    system = _system()
    assert system.stage_names == ("autoencoder_ae_left", "autoencoder_ae_right", "latents_ae", "score_mld")
    assert system.latent_space.config.rae_noise == 0
    assert not system.has_likelihood


def test_it_learns_the_noise():
    system = _system(prediction="noise")
    stage, products = system.stages(DATASET)[-1], _products(system)
    rows = jax.tree.map(lambda array: jnp.tile(array, (40, 1, 1)), stage.rows(products))
    (loss, _), gradient = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))(
        products["score_mld"], products, jax.random.key(1), rows
    )
    assert loss == pytest.approx(1.0, abs=0.1)  # its output layer is zero at first
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0


@pytest.mark.parametrize(("sampler", "evaluations"), [("shared", 3), ("euler", 250), ("repaint", 2500)])
def test_samplers(sampler, evaluations):
    system = _system(sampler=sampler)
    products = _products(system)
    data = {name: jnp.asarray(values) for name, values in DATASET.test.data.items()}
    generate = jax.jit(lambda key: system.generate(products, key, data, jnp.array([True, False]), OPTIONS))
    result = generate(jax.random.key(0))
    assert int(result.info["network_evaluations"]) == evaluations
    assert int(result.info["diverged"]) == 0
    np.testing.assert_array_equal(result.data["left"][:, 0], data["left"])


def test_what_is_absent_is_not_looked_at():
    network = _system().score_model.network
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(2, 2, 3)), jnp.float32)
    t, observed, present = jnp.full((2, 2), 0.3), jnp.zeros((2, 2), bool), jnp.array([[True, False], [True, True]])
    params = network.init(jax.random.key(0), z, t, observed)["params"]
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)

    def run(z, t):
        return np.asarray(network.apply({"params": params}, z, t, observed, present))

    out, other = run(z, t), run(z.at[:, 1].add(1.0), t.at[:, 1].set(0.7))
    np.testing.assert_array_equal(out[0], other[0])
    assert np.abs(out[1] - other[1]).max() > 1e-3


def test_the_network_is_told_the_times():
    network = _system().score_model.network
    z, observed = jnp.ones((2, 2, 3)), jnp.zeros((2, 2), bool)
    params = network.init(jax.random.key(0), z, jnp.zeros((2, 2)), observed)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)
    first, second = (network.apply({"params": params}, z, jnp.full((2, 2), t), observed) for t in (0.1, 0.9))
    assert first.shape == (2, 2, 3)
    assert not np.allclose(first, second, atol=1e-3)


def test_unknown_samplers_are_refused():
    with pytest.raises(SbmError, match="Known: euler, repaint, shared"):
        MldConfig(TrainingConfig(2, 4), sampler="paint")


def test_nothing_regularises_its_autoencoders():
    codec = {"name": "mlp", "rae_beta": 1.0, "rae_noise": 1.0}
    modalities = tuple(dataclasses.replace(m, codec=CodecConfig(**codec)) for m in MODALITIES)
    shared = Shared(modalities, AUTOENCODER, ScoreConfig(TrainingConfig(2, 4)))
    system = METHODS[0].make("mld", shared, mld=MldConfig(TrainingConfig(2, 4)))
    for training in system.latent_space.trainings:
        for modality in training.modalities:
            assert training.beta(modality) == 0.0
            assert (training.config.rae_noise, modality.codec.rae_noise) == (0.0, None)
