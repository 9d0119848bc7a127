"""SBM-VAE and SBM-RAE on tiny data: the objective's terms, the bank, generation, alignment, fine-tuning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.systems.latents import latent_statistics, pack, unpack, valid_entries
from sbm_jax.systems.sbm import Sbm
from sbm_jax.systems.sbm_contrastive import SbmContrastive
from sbm_jax.systems.unimodal import LatentSpace
from sbm_jax.training.stages import fingerprints
from sbm_jax.types import CodecConfig, Modality
from tests.systems.sbm_cases import (
    CONFIG,
    CONTRASTIVE,
    DATASET,
    MODALITIES,
    MODALITY_NAMES,
    OPTIONS,
    SYSTEMS,
    aligned_config,
    as_floats,
    fresh,
    generated,
)


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]


@pytest.fixture(scope="module")
def products(system):
    """Fresh parameters, with the score network's zero output layer perturbed."""
    made = fresh(system)
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), made[system.score_stage_name])
    return {**made, system.score_stage_name: noisy}


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
    bank = products[system.latent_space.bank_stage]
    assert bank["train"]["mean"].shape == (10, 3, 4)
    space = system.latent_space
    posteriors = space.codecs.encode(space.params(products), as_floats(DATASET.train))
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
            # Neither the RAE nor the encoders of embeddings have a use for the head of the log variances: its kernel
            # and bias, in one group and in three.
            unused = {"contrastive": 6, **{f"autoencoder_rae_{modality.name}": 2 for modality in MODALITIES}}
            assert dead == unused.get(stage.name, 0), stage.name


def test_observed_comes_back_unchanged_and_unobserved_input_is_ignored(system, products):
    data = as_floats(DATASET.test)
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
    assert int(first.info["network_evaluations"]) == 3 * system.evaluations_per_score
    assert not first.info["diverged"].any()


def test_nothing_given_needs_no_data(system, products):
    generate = jax.jit(lambda key: system.generate(products, key, {}, jnp.zeros((2, 3), bool), OPTIONS))
    result = generate(jax.random.key(0))
    assert result.data["words"].shape == (2, 1, 6)
    np.testing.assert_allclose(result.data["words"].sum(axis=-1), 1.0, rtol=1e-5)


def test_latents_that_make_no_square_are_refused_by_the_unet():
    score = dataclasses.replace(CONFIG.score, network=ScoreNetworkConfig("unet", 8))
    modalities = tuple(dataclasses.replace(m, latent_size=5) for m in MODALITIES)
    system = Sbm("sbm_vae", modalities, dataclasses.replace(CONFIG, score=score))
    with pytest.raises(SbmError, match="square"):
        system.make_score_stage().init(jax.random.key(0), {})


# MARK: A part of the modalities


@pytest.mark.parametrize(
    "name",
    ["sbm_vae", pytest.param("sbm_vae_c", marks=pytest.mark.slow), pytest.param("sbm_rae_t", marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_a_part_of_the_modalities_shares_stage_one(name):
    whole = SYSTEMS[name]
    for modalities in (MODALITIES[1:], MODALITIES[:2][::-1]):
        part = dataclasses.replace(whole, modalities=modalities, encoded=MODALITIES)
        stages = part.stages(DATASET)
        ours, theirs = fingerprints(stages), fingerprints(whole.stages(DATASET))
        for stage in whole.latent_space.stage_names:
            assert ours[stage] == theirs[stage]
        assert ours[part.score_stage_name] != theirs[part.score_stage_name]
        made, everything = fresh(part), as_floats(DATASET.test)
        data = {modality.name: everything[modality.name] for modality in modalities}
        observed = np.array([modality.name == "words" for modality in modalities])
        result = jax.jit(functools.partial(part.generate, options=OPTIONS))(made, jax.random.key(0), data, observed)
        assert result.data.keys() == set(data)
        np.testing.assert_array_equal(np.asarray(result.data["words"])[:, 0], everything["words"])


def test_a_part_has_its_own_statistics():
    whole = SYSTEMS["sbm_vae"]
    made = fresh(whole)
    part = dataclasses.replace(whole, modalities=(MODALITIES[2], MODALITIES[1]), encoded=MODALITIES).latent_space
    everything, own = whole.latent_space.statistics(made), part.statistics(made)
    np.testing.assert_array_equal(own.mean, np.asarray(everything.mean)[[2, 1]])
    blocks = np.asarray(everything.correlation).reshape(3, 4, 3, 4)
    np.testing.assert_array_equal(np.asarray(own.correlation).reshape(2, 4, 2, 4)[0, :, 1], blocks[2, :, 1])
    np.testing.assert_array_equal(
        part.bank(made, "train")["mean"], whole.latent_space.bank(made, "train")["mean"][:, [2, 1]]
    )
    narrow = dataclasses.replace(whole, modalities=(MODALITIES[1],), encoded=MODALITIES).latent_space
    assert narrow.statistics(made).mean.shape == (1, 3)


# MARK: Alignment


KEY = jax.random.key(9)  # feed-forward decoders draw nothing


def _aligned_training(**changes):
    (training,) = LatentSpace(MODALITIES, aligned_config(), **changes).trainings
    return training


def test_alignment_asks_rows_to_find_each_other():
    training = _aligned_training()
    params, rng = training.codecs.init(jax.random.key(0)), np.random.default_rng(0)
    outputs = {m.name: jnp.asarray(rng.normal(size=(6, *m.shape)), jnp.float32) for m in MODALITIES}
    together = np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1)
    own = {m.name: rng.normal(size=(6, m.latent_size - 2)) for m in MODALITIES}
    latents = {name: jnp.asarray(np.concatenate([together, rest], axis=1), jnp.float32) for name, rest in own.items()}
    loss, _ = training.alignment(params, KEY, latents, outputs)
    other = {**latents, "words": latents["words"].at[:, 2:].set(7.0), "mask": 3 * latents["mask"]}
    same, _ = training.alignment(params, KEY, other, outputs)
    np.testing.assert_allclose(same, loss, rtol=1e-5)  # neither length nor what is not aligned
    astray, _ = training.alignment(params, KEY, {**latents, "mask": latents["mask"][::-1]}, outputs)
    assert astray > loss + 1


@pytest.mark.parametrize("regularised", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_losses_are_added_with_their_weight(regularised):
    aligned = _aligned_training(regularised=regularised)
    plain = dataclasses.replace(aligned, config=CONFIG.autoencoder)
    params, batch = plain.codecs.init(jax.random.key(0)), {"data": DATASET.train.data}
    without, _ = plain.loss(params, {}, jax.random.key(1), batch)
    value, metrics = aligned.loss(params, {}, jax.random.key(1), batch)
    assert metrics["alignment"] > 0
    assert metrics["recognition"] > 0
    np.testing.assert_allclose(value - without, 5.0 * (metrics["alignment"] + metrics["recognition"]), rtol=1e-4)


def test_what_is_drawn_step_by_step_is_not_encoded_again():
    drawn = CodecConfig("diffusion", {"decoder": {"network": {"width": 8, "depth": 1}}})
    modalities = tuple(dataclasses.replace(m, codec=drawn) if m.name == "image" else m for m in MODALITIES)
    (training,) = LatentSpace(modalities, aligned_config()).trainings
    params, data = training.codecs.init(jax.random.key(0)), as_floats(DATASET.train)

    def recognition(params):
        _, latents, outputs = training.autoencode(params, jax.random.key(1), data)
        return training.alignment(params, KEY, latents, outputs)[1]

    def is_taught(group):
        return any(g.any() for g in jax.tree.leaves(group["decoder"]))

    assert sorted(map(is_taught, jax.jit(jax.grad(recognition))(params).values())) == [False, True, True]


@pytest.mark.slow
def test_recognition_teaches_decoders_and_alignment_encoders():
    training = _aligned_training()
    params, data = training.codecs.init(jax.random.key(0)), as_floats(DATASET.train)

    def loss(params, which):
        _, latents, outputs = training.autoencode(params, jax.random.key(1), data)
        return training.alignment(params, KEY, jax.lax.stop_gradient(latents) if which else latents, outputs)[which]

    def untaught(params):
        _, latents, outputs = training.autoencode(made, jax.random.key(1), data)
        return training.alignment(params, KEY, latents, outputs)[1]

    made = params
    assert all(not g.any() for g in jax.tree.leaves(jax.grad(untaught)(params)))  # not by encoding again

    def size(part, which):
        gradient = jax.grad(loss)(params, which)
        return sum(float(jnp.abs(g).sum()) for group in gradient.values() for g in jax.tree.leaves(group[part]))

    assert size("decoder", 0) == 0
    assert size("encoder", 0) > 0
    assert size("decoder", 1) > 0


def test_aligned_entries_must_be_there():
    with pytest.raises(SbmError, match="smallest latent has 3 entries"):
        LatentSpace(MODALITIES, aligned_config(aligned_size=4))
    with pytest.raises(SbmError, match="two modalities or more"):
        LatentSpace(MODALITIES[:1], aligned_config())
    with pytest.raises(SbmError, match="2 or more"):
        aligned_config(aligned_size=1)


# MARK: Fine-tuning


def test_fine_tuning_changes_the_decoders_alone():
    system = SYSTEMS["sbm_vae_f"]
    made = dict(fresh(system))
    plain = generated(SYSTEMS["sbm_vae"], made)
    same = generated(system, made)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain.data, same.data)
    made[system.decoder_stage] = jax.tree.map(lambda p: p + 0.1, made[system.decoder_stage])
    tuned = generated(system, made)
    jax.tree.map(np.testing.assert_array_equal, plain.latents, tuned.latents)
    assert not np.allclose(plain.data["mask"], tuned.data["mask"], atol=1e-3)
    np.testing.assert_array_equal(plain.data["image"], tuned.data["image"])  # observed


# MARK: Likelihood


def test_log_weights_have_the_density_of_the_score_model():
    """A fresh network's velocity is 0, with which latents are N(0, I) at all times: their density is known."""
    system = SYSTEMS["sbm_vae"]
    products, data = fresh(system), as_floats(DATASET.test)
    space, valid = system.latent_space, valid_entries(MODALITIES)
    z = np.where(valid[None], np.random.default_rng(0).normal(size=(5, 3, 4)), 0.0).astype(np.float32)
    density = system.log_density(products, jax.random.key(0), jnp.asarray(z))
    expected = (-0.5 * (z**2 + np.log(2 * np.pi)) * valid[None]).sum(axis=(1, 2))
    np.testing.assert_allclose(density, expected, atol=0.02)
    weights = system.log_weights(products, jax.random.key(1), data, 60)
    mean, std = (np.asarray(array, np.float64) for array in space.posterior(products, data))
    statistics = jax.tree.map(lambda array: np.asarray(array, np.float64), space.statistics(products))
    assert weights.shape == (5, 60)
    # E_q log p(z) - log q(z): minus the divergence of the standardised posterior from N(0, I).
    location, scale = (mean - statistics.mean) / statistics.std, std / statistics.std
    scale = np.where(valid[None], scale, 1.0)
    divergence = 0.5 * ((location**2 + scale**2 - 1 - 2 * np.log(scale)) * valid[None]).sum(axis=(1, 2))
    elbo = np.asarray(weights).mean(axis=1)
    draws = mean[None] + std[None] * np.random.default_rng(1).normal(size=(60, 5, 3, 4))
    likelihood = np.asarray(space.log_likelihood(products, KEY, data, jnp.asarray(draws, jnp.float32))).sum(axis=-1)
    error = np.sqrt((np.asarray(weights).var(axis=1) + likelihood.var(axis=0)) / 60)
    np.testing.assert_array_less(np.abs(elbo - (likelihood.mean(axis=0) - divergence)), 5 * error + 0.02)


# MARK: Keys


def test_equal_encoders_drop_units_of_their_own():
    """Two modalities with the same parameters and the same data, of which dropout makes different embeddings."""
    twins = tuple(Modality(name, (6,), 3, "mlp") for name in ("one", "two"))
    contrastive = dataclasses.replace(CONTRASTIVE, dropout=0.5)
    x = jax.random.normal(jax.random.key(0), (4, 6))
    for batched in (False, True):
        system = SbmContrastive("sbm_vae_t", twins, CONFIG, batched=batched, contrastive=contrastive)
        params = system.encoders.init(jax.random.key(1))
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape) if leaf.ndim else leaf, params)
        plain = system.encoders.embeddings(params, {"one": x, "two": x})
        np.testing.assert_allclose(plain[:, 0], plain[:, 1], rtol=1e-5, atol=1e-6)
        dropped = system.encoders.embeddings(params, {"one": x, "two": x}, jax.random.key(2))
        assert not np.allclose(dropped[:, 0], dropped[:, 1], atol=1e-2)


# MARK: Diverged rows


def test_fine_tuning_learns_nothing_from_rows_that_diverge(monkeypatch):
    """A row whose sample is NaN changes neither the loss nor a gradient, and is counted."""
    system = SYSTEMS["sbm_vae_f"]
    made, rows = fresh(system), DATASET.train.rows(MODALITY_NAMES)
    stage = system.stages(DATASET)[-1]
    sample_latents, lost = Sbm.sample_latents, np.arange(10) % 2 == 1

    def sampled(diverged, *arguments, **named):
        found = sample_latents(*arguments, **named)
        return found._replace(z=jnp.where(diverged[:, None, None], jnp.nan, found.z), diverged=diverged)

    @jax.jit
    def losses(diverged, batch):
        monkeypatch.setattr(Sbm, "sample_latents", lambda *a, **k: sampled(diverged, *a, **k))
        params = made[system.decoder_stage]
        return jax.value_and_grad(lambda p: stage.loss(p, made, jax.random.key(5), batch), has_aux=True)(params)

    (value, metrics), gradient = losses(lost, rows)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert metrics["diverged"] == pytest.approx(0.5)
    spoiled = {name: np.array(values) for name, values in rows["data"].items()}
    for values in spoiled.values():
        values[lost] = 0
    (other, _), _ = losses(lost, {**rows, "data": spoiled})
    np.testing.assert_allclose(value, other, rtol=1e-5)
    (everything, _), _ = losses(np.zeros(10, bool), rows)
    assert not np.isclose(value, everything, rtol=1e-3)
