"""Systems whose latents are cut into several tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sbm_cases import CONFIG, DATASET, MODALITIES, SYSTEMS, as_floats, fresh, generated

from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.eb_mvae import EbMvae, EbMvaeConfig
from sbm_jax.systems.latents import pack, unpack, valid_entries
from sbm_jax.systems.sbm import Sbm
from sbm_jax.types import TrainingConfig

CUT = tuple(dataclasses.replace(m, num_tokens=n) for m, n in zip(MODALITIES, (2, 3, 1), strict=True))


def test_unpack_undoes_pack():
    latents = {m.name: jax.random.normal(jax.random.key(i), (5, m.latent_size)) for i, m in enumerate(CUT)}
    z = pack(latents, CUT)
    assert z.shape == (5, 6, 4)
    np.testing.assert_array_equal(np.asarray(z)[:, ~valid_entries(CUT)], 0)
    np.testing.assert_array_equal(np.asarray(z)[:, :2, :2].reshape(5, 4), latents["image"])
    jax.tree.map(np.testing.assert_array_equal, unpack(z, CUT), latents)


@pytest.mark.parametrize(
    "name", [pytest.param("sbm_vae_c", marks=pytest.mark.slow), "sbm_rae_t", "sbm_vae_m", "sbm_vae_f"]
)
def test_every_system_generates_and_learns(name):
    system = dataclasses.replace(SYSTEMS[name], modalities=CUT)
    products = fresh(system)
    result = generated(system, products)
    assert all(np.isfinite(array).all() for array in result.data.values())
    assert {name: array.shape for name, array in result.latents.items()} == {m.name: (5, 1, m.latent_size) for m in CUT}
    data = as_floats(DATASET.test)
    encoded = unpack(system.latent_space.encode(products, data), CUT)
    np.testing.assert_allclose(result.latents["image"][:, 0], encoded["image"], rtol=1e-5, atol=1e-6)
    for stage in system.stages(DATASET):
        if stage.name.startswith(("score", "energy", "decoders")):
            rows = jax.tree.map(lambda array: array[:4], stage.rows(products))
            loss, _ = jax.jit(lambda params, rows, stage=stage: stage.loss(params, products, jax.random.key(1), rows))(
                products[stage.name], rows
            )
            assert np.isfinite(loss)


EQUAL = tuple(dataclasses.replace(m, latent_size=4) for m in MODALITIES)
EQUAL_CUT = tuple(dataclasses.replace(m, num_tokens=2) for m in EQUAL)


def _flat_system(kind, modalities):
    """A system whose network flattens all latents, so that it cannot see how they are cut."""
    if kind == "eb_mvae":
        return EbMvae(kind, modalities, CONFIG, energy=EbMvaeConfig(TrainingConfig(2, 4), width=16, num_steps=3))
    score = dataclasses.replace(CONFIG.score, network=ScoreNetworkConfig("mlp", 32, 1))
    return Sbm(kind, modalities, dataclasses.replace(CONFIG, score=score))


def _perturbed(products):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32) if p.dtype == jnp.float32 else p, products
    )


@pytest.mark.parametrize("options", [{}, {"conditioning": "particles"}, {"conditioning": "reference"}], ids=str)
@pytest.mark.parametrize("kind", ["sbm_vae", "eb_mvae"])
@pytest.mark.slow
def test_how_latents_are_cut_changes_nothing_for_a_network_that_flattens_them(kind, options):
    results = []
    for modalities in (EQUAL, EQUAL_CUT):
        system = _flat_system(kind, modalities)
        products = dict(fresh(system))
        products[system.score_stage_name] = _perturbed(products[system.score_stage_name])
        results.append(generated(system, products, options=SamplerOptions(num_steps=3, **options)))
    for whole, cut in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(whole, cut, rtol=1e-4, atol=1e-5)


def test_how_latents_are_cut_changes_no_statistics_and_no_likelihood():
    found = []
    for modalities in (EQUAL, EQUAL_CUT):
        system = _flat_system("sbm_vae", modalities)
        products = dict(fresh(system))
        products[system.score_stage_name] = _perturbed(products[system.score_stage_name])
        statistics = system.latent_space.statistics(products)
        data = {name: array[:2] for name, array in as_floats(DATASET.test).items()}
        weights = jax.jit(
            lambda data, system=system, products=products: system.log_weights(products, jax.random.key(1), data, 2)
        )(data)
        start = generated(system, products, options=SamplerOptions(num_steps=2, start="gaussian", start_time=0.7))
        found.append((statistics.mean.ravel(), statistics.correlation, weights, start.latents))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *found)


def test_a_part_of_the_trained_modalities_has_its_own_tokens():
    whole = dataclasses.replace(SYSTEMS["sbm_vae"], modalities=CUT)
    part = dataclasses.replace(whole, modalities=(CUT[2], CUT[1]), encoded=CUT)
    products = fresh(whole)
    tokens, space = np.array([5, 2, 3, 4]), whole.latent_space.statistics(products)
    found = part.latent_space.statistics(products)
    np.testing.assert_array_equal(found.mean, np.asarray(space.mean)[tokens])
    size = space.mean.shape[1]
    blocks = np.asarray(space.correlation).reshape(6, size, 6, size)[tokens][:, :, tokens]
    np.testing.assert_array_equal(found.correlation, blocks.reshape(4 * size, -1))
    bank = part.latent_space.bank(products, "train")
    np.testing.assert_array_equal(bank["mean"], np.asarray(products["latents_vae"]["train"]["mean"])[:, tokens])
