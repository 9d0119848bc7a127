"""SBM-VAE and SBM-RAE on tiny data: the objective's terms, the bank, generation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.latents import latent_statistics, pack, unpack, valid_entries
from sbm_jax.systems.sbm import AutoencoderConfig, Sbm, SbmConfig, ScoreConfig
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (
    Modality("image", (8, 8, 1), 4, "patch"),
    Modality("words", (6,), 3, "mlp", "categorical"),
    Modality("mask", (8, 8, 1), 4, "patch", "bernoulli"),
)
CONFIG = SbmConfig(
    AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,))),
    ScoreConfig(TrainingConfig(2, 4), ScoreNetworkConfig("transformer", 32, 1)),
)
OPTIONS = SamplerOptions(num_steps=3)


def _split(num_rows, seed):
    rng = np.random.default_rng(seed)
    data = {
        "image": rng.integers(0, 256, (num_rows, 8, 8, 1), dtype=np.uint8),
        "words": np.eye(6, dtype=np.float32)[rng.integers(0, 6, num_rows)],
        "mask": rng.integers(0, 2, (num_rows, 8, 8, 1)).astype(np.float32),
    }
    return Split(data, None)


DATASET = Dataset(_split(10, 0), _split(4, 1), _split(5, 2), None, {})


@pytest.fixture(scope="module", params=["sbm_vae", "sbm_rae"])
def system(request):
    return Sbm(request.param, MODALITIES, CONFIG, regularised=request.param == "sbm_rae")


@pytest.fixture(scope="module")
def products(system):
    """Fresh parameters, with the score network's zero output layer perturbed."""
    made = {}
    for stage in system.stages(DATASET):
        make = jax.jit(stage.init) if stage.training else stage.init
        made[stage.name] = make(jax.random.key(0), made)
    noisy = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), made[system.stage_names[2]]
    )
    return {**made, system.stage_names[2]: noisy}


def _float(split):
    return {name: values / (255.0 if values.dtype == np.uint8 else 1.0) for name, values in split.data.items()}


def test_packing_is_undone_and_pads_with_zeros():
    latents = {m.name: jnp.full((2, m.latent_size), i + 1.0) for i, m in enumerate(MODALITIES)}
    z = pack(latents, MODALITIES)
    assert z.shape == (2, 3, 4)
    np.testing.assert_array_equal(np.asarray(z)[:, ~valid_entries(MODALITIES)], 0)
    jax.tree.map(np.testing.assert_array_equal, unpack(z, MODALITIES), latents)


def test_statistics_are_those_of_posterior_samples():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(2.0, 1.5, (5000, 3, 4)), rng.uniform(0.1, 1.0, (5000, 3, 4))
    samples = mean + std * rng.normal(size=mean.shape)
    statistics = latent_statistics(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(valid_entries(MODALITIES)))
    valid = valid_entries(MODALITIES)
    np.testing.assert_allclose(np.asarray(statistics.std)[valid], samples.std(axis=0)[valid], rtol=0.05)
    np.testing.assert_array_equal(np.asarray(statistics.std)[~valid], 1.0)


def test_bank_holds_every_row(system, products):
    """Ten rows in chunks of four: the last chunk overlaps, and repeats nothing."""
    bank = products[system.stage_names[1]]
    assert bank["train"]["mean"].shape == (10, 3, 4)
    posteriors = system.autoencoders.encode(products[system.stage_names[0]], _float(DATASET.train))
    expected = pack({name: mean for name, (mean, _) in posteriors.items()}, MODALITIES)
    np.testing.assert_allclose(bank["train"]["mean"], expected, rtol=1e-4, atol=1e-5)
    assert (np.asarray(bank["train"]["std"]) == 0).all() == system.regularised


def test_losses_are_finite_and_reach_every_parameter(system, products):
    for stage in system.stages(DATASET):
        if stage.training:
            rows = jax.tree.map(lambda array: jnp.asarray(array)[:4], stage.rows(products))
            (loss, _), gradient = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))(
                products[stage.name], products, jax.random.key(1), rows
            )
            assert np.isfinite(loss)
            norms = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)]
            dead = sum(norm == 0 for norm in norms)
            # The RAE has no use for the head of the log variances: its kernel and bias, twice (two groups).
            assert dead == (4 if stage.name == "autoencoders_rae" else 0)


def test_observed_comes_back_unchanged_and_unobserved_input_is_ignored(system, products):
    data = _float(DATASET.test)
    observed = np.array([[True, False, False], [False, True, True], [False] * 3, [True] * 3, [False, False, True]])
    generate = jax.jit(lambda d: system.generate(products, jax.random.key(3), d, jnp.asarray(observed), OPTIONS, 2))
    first = generate(data)
    for i, modality in enumerate(MODALITIES):
        samples = np.asarray(first.data[modality.name])
        assert samples.shape == (5, 2, *modality.shape)
        assert np.isfinite(samples).all()
        given = np.repeat(data[modality.name][:, None], 2, axis=1)
        np.testing.assert_array_equal(samples[observed[:, i]], given[observed[:, i]].astype(np.float32))
    hidden = {
        m.name: np.where(observed[:, i].reshape(5, *[1] * len(m.shape)), data[m.name], 0.5)
        for i, m in enumerate(MODALITIES)
    }
    second = generate(hidden)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first.data, second.data)
    assert int(first.info["network_evaluations"]) == 3
    assert not first.info["diverged"].any()


def test_nothing_given_needs_no_data(system, products):
    result = system.generate(products, jax.random.key(0), {}, jnp.zeros((2, 3), bool), OPTIONS)
    assert result.data["words"].shape == (2, 1, 6)
    np.testing.assert_allclose(result.data["words"].sum(axis=-1), 1.0, rtol=1e-5)


def test_latents_that_make_no_square_are_refused_by_the_unet():
    score = dataclasses.replace(CONFIG.score, network=ScoreNetworkConfig("unet", 8))
    modalities = tuple(dataclasses.replace(m, latent_size=5) for m in MODALITIES)
    system = Sbm("sbm_vae", modalities, dataclasses.replace(CONFIG, score=score))
    stage = system.stages(DATASET)[2]
    with pytest.raises(SbmError, match="square"):
        stage.init(jax.random.key(0), {})
