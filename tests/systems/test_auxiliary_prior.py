"""Trained priors of multimodal VAEs, on tiny data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.auxiliary_prior import AuxiliaryPrior
from sbm_jax.systems.joinings import MmvaePlus, Mopoe, Mvtcae
from sbm_jax.systems.joint_latents import Latents
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.systems.score_stage import ScoreConfig
from sbm_jax.training.stages import fingerprints
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (Modality("left", (6,), 3, "mlp"), Modality("right", (4,), 3, "mlp"), Modality("top", (3,), 3, "mlp"))
JOININGS = {joining.name: joining for joining in (Mopoe(), Mvtcae(), MmvaePlus(latent_size=4, private_size=3))}
CONFIG = JointPosteriorConfig(
    TrainingConfig(2, 16),
    AutoencoderNetworkConfig((16,)),
    latent_size=4,
    score_prior=ScoreConfig(TrainingConfig(2, 8), ScoreNetworkConfig("mlp", 32, 1)),
    mixture_components=2,
)
NAMES = ("mopoe_score", "mvtcae_mixture", "mmvae_plus_score", "mmvae_plus_mixture")
OPTIONS = SamplerOptions(num_steps=3)


def _split(num_rows, seed):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(num_rows, 1))
    data = {m.name: (common + 0.5 * rng.normal(size=(num_rows, *m.shape))).astype(np.float32) for m in MODALITIES}
    return Split(data)


DATASET = Dataset(_split(300, 0), _split(20, 1), _split(5, 2), {}, {})


def _system(name):
    return AuxiliaryPrior(name, MODALITIES, CONFIG, JOININGS[name.rpartition("_")[0]])


@functools.cache
def _products(name):
    made = {}
    for stage in _system(name).stages(DATASET):
        made[stage.name] = stage.init(jax.random.key(0), made)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_what_is_decoded_survives_packing(name):
    bank = _system(name).bank
    size, own_size = _system(name).sizes
    rng = np.random.default_rng(0)
    latents = Latents(
        jnp.asarray(rng.normal(size=(2, 5, size)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 5, 3, own_size)), jnp.float32),
    )
    statistics = bank.statistics(_products(name))
    z = bank.pack(latents, statistics)
    assert z.shape == (10, *bank.valid.shape)
    again = bank.unpack(z, statistics, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), latents, again)


@pytest.mark.parametrize("name", ["mvtcae_mixture", "mmvae_plus_mixture"])
def test_a_mixture_has_the_moments_of_the_posteriors(name):
    system, products = _system(name), _products(name)
    found, _ = system._sample_prior(products, jax.random.key(1), 100, 100, OPTIONS)
    params, data = products[system.method], {k: jnp.asarray(v) for k, v in DATASET.train.data.items()}
    experts = system._experts(params, data)
    expected = system.laws.sample_given(params, jax.random.key(2), experts, jnp.ones((300, 3), bool), 100)
    for ours, theirs in zip(found, expected, strict=True):
        if ours.size:
            ours, theirs = (np.asarray(array).reshape(-1, array.shape[-1]) for array in (ours, theirs))
            np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.25)
            np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_conditional_generation_is_that_of_the_method(name):
    """Rows with something observed do not depend on the prior; those without come from it."""
    system, products = _system(name), _products(name)
    plain = JointPosterior(system.method, MODALITIES, CONFIG, system.joining)
    data = {k: jnp.asarray(v) for k, v in DATASET.test.data.items()}
    observed = jnp.array([[True, False, False]] * 4 + [[False] * 3])
    arguments = jax.random.key(3), data, observed, OPTIONS, 2
    ours, theirs = system.generate(products, *arguments), plain.generate(products, *arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:4], b[:4], rtol=1e-4, atol=1e-5), ours.data, theirs.data)
    assert not np.allclose(ours.data["right"][4], theirs.data["right"][4], atol=1e-3)
    given = system.with_free(2).generate(products, *arguments)
    assert int(given.info["network_evaluations"]) == 0  # nothing is to come from the prior


def test_joint_samples_cost_evaluations_of_the_score_prior_only():
    for name, evaluations in (("mopoe_score", 3), ("mvtcae_mixture", 0)):
        nothing = jnp.zeros((4, 3), bool)
        result = _system(name).generate(_products(name), jax.random.key(0), {}, nothing, OPTIONS)
        assert int(result.info["network_evaluations"]) == evaluations
        assert result.data["left"].shape == (4, 1, 6)
        assert int(result.info["diverged"]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_log_weights_have_the_density_of_the_prior(name):
    system, products = _system(name), _products(name)
    data = {k: jnp.asarray(v) for k, v in DATASET.test.data.items()}
    weights = system.log_weights(products, jax.random.key(0), data, 2)
    assert weights.shape == (5, 2)
    assert np.isfinite(weights).all()


def test_the_density_of_a_mixture_is_that_of_the_latents():
    """Its average over its own samples is minus the entropy of the one Gaussian that fits them."""
    config = JointPosteriorConfig(TrainingConfig(2, 16), AutoencoderNetworkConfig((16,)), 4, mixture_components=1)
    system, products = AuxiliaryPrior("mvtcae_mixture", MODALITIES, config, Mvtcae()), {}
    for stage in system.stages(DATASET):
        products[stage.name] = stage.init(jax.random.key(0), products)
    latents, _ = system._sample_prior(products, jax.random.key(1), 100, 100, OPTIONS)
    density = np.asarray(system._log_prior(products, jax.random.key(2), latents))
    covariance = np.cov(np.asarray(latents.joint).reshape(-1, 4).T)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    np.testing.assert_allclose(density.mean(), -entropy, atol=0.1)


def test_the_prior_changes_no_stage_of_the_method():
    plain = JointPosterior("mopoe", MODALITIES, CONFIG, Mopoe())
    mark = fingerprints(plain.stages(DATASET))["mopoe"]
    assert fingerprints(_system("mopoe_score").stages(DATASET))["mopoe"] == mark
    assert _system("mopoe_score").stage_names == ("mopoe", "latents_mopoe", "prior_mopoe_score")
