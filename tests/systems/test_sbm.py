"""SBM-VAE and SBM-RAE on tiny data: the objective's terms, the bank, generation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data import hide
from sbm_jax.errors import SbmError
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.runner import make_generate
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.latents import latent_statistics, pack, unpack, valid_entries
from sbm_jax.systems.sbm import Sbm, SbmConfig, ScoreConfig
from sbm_jax.systems.sbm_contrastive import ContrastiveConfig, SbmContrastive
from sbm_jax.systems.sbm_energy import EnergyConfig, SbmEnergy
from sbm_jax.systems.sbm_finetuned import FinetuningConfig, SbmFinetuned
from sbm_jax.systems.sbm_marginal import SbmMarginal
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training.loop import fingerprints
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (
    Modality("image", (8, 8, 1), 4, "patch"),
    Modality("words", (6,), 3, "mlp", "categorical"),
    Modality("mask", (8, 8, 1), 4, "patch", "bernoulli"),
)
MODALITY_NAMES = [modality.name for modality in MODALITIES]
CONFIG = SbmConfig(
    AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,))),
    ScoreConfig(TrainingConfig(2, 4), ScoreNetworkConfig("transformer", 32, 1)),
)
ALONE = dataclasses.replace(CONFIG, score=dataclasses.replace(CONFIG.score, probability_alone=0.5))
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


ENERGY = EnergyConfig(TrainingConfig(2, 4), width=16, depth=2)
CONTRASTIVE = ContrastiveConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,)), embedding_size=6)
SYSTEMS = {
    "sbm_vae": Sbm("sbm_vae", MODALITIES, CONFIG),
    "sbm_rae": Sbm("sbm_rae", MODALITIES, CONFIG, regularised=True),
    "sbm_vae_c": SbmEnergy("sbm_vae_c", MODALITIES, CONFIG, energy=ENERGY),
    "sbm_rae_t": SbmContrastive("sbm_rae_t", MODALITIES, CONFIG, regularised=True, contrastive=CONTRASTIVE),
    "sbm_vae_m": SbmMarginal("sbm_vae_m", MODALITIES, ALONE),
    "sbm_vae_f": SbmFinetuned("sbm_vae_f", MODALITIES, CONFIG, finetuning=FinetuningConfig(TrainingConfig(2, 4))),
}


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]


@functools.cache
def _fresh(system):
    """The products of all stages without training."""
    made = {}
    for stage in system.stages(DATASET):
        make = jax.jit(stage.init) if stage.training else stage.init
        made[stage.name] = make(jax.random.key(0), made)
    return made


@pytest.fixture(scope="module")
def products(system):
    """Fresh parameters, with the score network's zero output layer perturbed."""
    made = _fresh(system)
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), made[system.score_stage_name])
    return {**made, system.score_stage_name: noisy}


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
    bank = products[system.latent_space.bank_stage]
    assert bank["train"]["mean"].shape == (10, 3, 4)
    posteriors = system.latent_space.autoencoders.encode(
        products[system.latent_space.autoencoder_stage], _float(DATASET.train)
    )
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
            # and bias, in two groups.
            assert dead == (4 if stage.name in ("autoencoders_rae", "contrastive") else 0), stage.name


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


@pytest.mark.parametrize("name", ["sbm_vae", "sbm_vae_c", "sbm_rae_t"])
def test_a_part_of_the_modalities_shares_stage_one(name):
    whole = SYSTEMS[name]
    for modalities in (MODALITIES[1:], MODALITIES[:2][::-1]):
        part = dataclasses.replace(whole, modalities=modalities, trained=MODALITIES)
        stages = part.stages(DATASET)
        ours, theirs = fingerprints(stages), fingerprints(whole.stages(DATASET))
        space = whole.latent_space
        assert ours[space.autoencoder_stage] == theirs[space.autoencoder_stage]
        assert ours[space.bank_stage] == theirs[space.bank_stage]
        assert ours[part.score_stage_name] != theirs[part.score_stage_name]
        made, everything = _fresh(part), _float(DATASET.test)
        data = {modality.name: everything[modality.name] for modality in modalities}
        observed = np.array([modality.name == "words" for modality in modalities])
        result = jax.jit(functools.partial(part.generate, options=OPTIONS))(made, jax.random.key(0), data, observed)
        assert result.data.keys() == set(data)
        np.testing.assert_array_equal(np.asarray(result.data["words"])[:, 0], everything["words"])


def test_a_part_has_its_own_statistics():
    whole = SYSTEMS["sbm_vae"]
    made = _fresh(whole)
    part = dataclasses.replace(whole, modalities=(MODALITIES[2], MODALITIES[1]), trained=MODALITIES).latent_space
    everything, own = whole.latent_space.statistics(made), part.statistics(made)
    np.testing.assert_array_equal(own.mean, np.asarray(everything.mean)[[2, 1]])
    blocks = np.asarray(everything.correlation).reshape(3, 4, 3, 4)
    np.testing.assert_array_equal(np.asarray(own.correlation).reshape(2, 4, 2, 4)[0, :, 1], blocks[2, :, 1])
    np.testing.assert_array_equal(
        part.bank(made, "train")["mean"], whole.latent_space.bank(made, "train")["mean"][:, [2, 1]]
    )
    narrow = dataclasses.replace(whole, modalities=(MODALITIES[1],), trained=MODALITIES).latent_space
    assert narrow.statistics(made).mean.shape == (1, 3)


# MARK: Alignment


def _aligned(**changes):
    return dataclasses.replace(CONFIG.autoencoder, **{"alignment": 5.0, "aligned_size": 2, **changes})


def test_alignment_asks_rows_to_find_each_other():
    space = LatentSpace(MODALITIES, _aligned())
    params, rng = space.autoencoders.init(jax.random.key(0)), np.random.default_rng(0)
    outputs = {m.name: jnp.asarray(rng.normal(size=(6, *m.shape)), jnp.float32) for m in MODALITIES}
    together = np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1)
    own = {m.name: rng.normal(size=(6, m.latent_size - 2)) for m in MODALITIES}
    latents = {name: jnp.asarray(np.concatenate([together, rest], axis=1), jnp.float32) for name, rest in own.items()}
    loss, _ = space._alignment(params, latents, outputs)
    other = {**latents, "words": latents["words"].at[:, 2:].set(7.0), "mask": 3 * latents["mask"]}
    same, _ = space._alignment(params, other, outputs)
    np.testing.assert_allclose(same, loss, rtol=1e-5)  # neither length nor what is not aligned
    astray, _ = space._alignment(params, {**latents, "mask": latents["mask"][::-1]}, outputs)
    assert astray > loss + 1


@pytest.mark.parametrize("regularised", [False, True])
def test_both_losses_are_added_with_their_weight(regularised):
    plain, aligned = (LatentSpace(MODALITIES, c, regularised=regularised) for c in (CONFIG.autoencoder, _aligned()))
    params, batch = plain.autoencoders.init(jax.random.key(0)), {"data": DATASET.train.data}
    without, _ = plain._autoencoder_loss(params, {}, jax.random.key(1), batch)
    value, metrics = aligned._autoencoder_loss(params, {}, jax.random.key(1), batch)
    assert metrics["alignment"] > 0
    assert metrics["recognition"] > 0
    np.testing.assert_allclose(value - without, 5.0 * (metrics["alignment"] + metrics["recognition"]), rtol=1e-4)


def test_recognition_teaches_decoders_and_alignment_encoders():
    space = LatentSpace(MODALITIES, _aligned())
    params, data = space.autoencoders.init(jax.random.key(0)), _float(DATASET.train)

    def loss(params, which):
        _, latents, outputs = space._autoencode(params, jax.random.key(1), data)
        return space._alignment(params, jax.lax.stop_gradient(latents) if which else latents, outputs)[which]

    def untaught(params):
        _, latents, outputs = space._autoencode(made, jax.random.key(1), data)
        return space._alignment(params, latents, outputs)[1]

    made = params
    assert all(not g.any() for g in jax.tree.leaves(jax.grad(untaught)(params)))  # not by encoding again

    def size(part, which):
        gradient = jax.grad(loss)(params, which)
        return sum(float(jnp.abs(g).sum()) for group in gradient.values() for g in jax.tree.leaves(group[part]))

    assert size("decoder", 0) == 0
    assert size("encoder", 0) > 0
    assert size("decoder", 1) > 0


def test_aligned_entries_must_be_there():
    with pytest.raises(SbmError, match="has 3 entries only"):
        LatentSpace(MODALITIES, _aligned(aligned_size=4))
    with pytest.raises(SbmError, match="two modalities or more"):
        LatentSpace(MODALITIES[:1], _aligned())
    with pytest.raises(SbmError, match="2 or more"):
        _aligned(aligned_size=1)


# MARK: Fine-tuning


def test_fine_tuning_changes_the_decoders_alone():
    system = SYSTEMS["sbm_vae_f"]
    made = dict(_fresh(system))
    plain = _generate(SYSTEMS["sbm_vae"], made)
    same = _generate(system, made)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain.data, same.data)
    made[system.decoder_stage] = jax.tree.map(lambda p: p + 0.1, made[system.decoder_stage])
    tuned = _generate(system, made)
    jax.tree.map(np.testing.assert_array_equal, plain.latents, tuned.latents)
    assert not np.allclose(plain.data["mask"], tuned.data["mask"], atol=1e-3)
    np.testing.assert_array_equal(plain.data["image"], tuned.data["image"])  # observed


# MARK: Guidance


def _generate(system, products, strength=None, options=OPTIONS, observed=(True, False, False), key=3, **changes):
    data = {**_float(DATASET.test), **changes}
    mask = np.broadcast_to(observed, (len(data["image"]), 3))
    run = jax.jit(
        lambda strength: system.generate(products, jax.random.key(key), data, mask, options, strength=strength)
    )
    return run(strength)


@pytest.fixture(scope="module", params=["sbm_vae_c", "sbm_rae_t", "sbm_vae_m"])
def guided(request):
    system = SYSTEMS[request.param]
    made = dict(_fresh(system))
    rng = np.random.default_rng(0)
    for name in (system.score_stage_name, "energy_vae"):
        if name in made:
            made[name] = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), made[name])
    return system, made


def test_strength_0_is_no_guidance(guided):
    """The energy system without guidance is the plain system; the contrastive one is its conditional score."""
    system, products = guided
    none = _generate(system, products, 0.0).latents
    if isinstance(system, (SbmEnergy, SbmMarginal)):
        plain = _generate(SYSTEMS["sbm_vae"], products).latents
    else:
        bound = dataclasses.replace(system, contrastive=dataclasses.replace(CONTRASTIVE, strength=0.0))
        plain = _generate(bound, products).latents
    # Two programs: latents of up to 10, rounded differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=3e-5), none, plain)
    some = _generate(system, products, 1.0).latents
    assert not np.allclose(none["words"], some["words"], atol=1e-3)
    np.testing.assert_array_equal(none["image"], some["image"])  # observed


def test_sweeping_the_strength_compiles_once(guided):
    system, products = guided
    data, mask = _float(DATASET.test), np.broadcast_to([True, False, False], (5, 3))

    traces = []

    @jax.jit
    def generate(strength):
        traces.append(strength)
        return system.generate(products, jax.random.key(0), data, mask, OPTIONS, strength=strength).latents["words"]

    results = [np.asarray(generate(strength)) for strength in (0.0, 1.0, 5.0)]
    assert len(traces) == 1
    assert not np.allclose(results[0], results[1])
    assert not np.allclose(results[1], results[2])


def test_each_row_has_a_strength_of_its_own(guided):
    system, products = guided
    weak, strong = (_generate(system, products, s).latents["words"] for s in (0.0, 2.0))
    mixed = _generate(system, products, jnp.array([0.0, 2.0, 0.0, 2.0, 2.0])).latents["words"]
    np.testing.assert_allclose(mixed[::2][:2], weak[::2][:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[1::2], strong[1::2], rtol=1e-4, atol=1e-5)


def test_nothing_observed_is_not_guided(guided):
    system, products = guided
    nothing = [False] * 3
    weak, strong = (_generate(system, products, s, observed=nothing).latents for s in (0.0, 3.0))
    if isinstance(system, SbmMarginal):  # what it favours is agreement, whoever agrees
        assert not np.allclose(weak["words"], strong["words"], atol=1e-3)
    else:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), weak, strong)


@pytest.mark.parametrize("conditioning", ["clean", "particles"])
def test_guidance_goes_with_single_times_and_particles(guided, conditioning):
    system, products = guided
    if isinstance(system, SbmContrastive):  # it is trained for them with a single time only
        single = dataclasses.replace(CONFIG, score=dataclasses.replace(CONFIG.score, probability_none=1.0))
        system = dataclasses.replace(system, config=single)
    options = dataclasses.replace(OPTIONS, conditioning=conditioning, num_particles=3)
    result = _generate(system, products, 0.5, options)
    assert not result.info["diverged"]
    assert np.isfinite(result.latents["words"]).all()


def test_a_wild_strength_is_reported_as_diverged(guided):
    system, products = guided
    result = _generate(system, products, 1e8)
    assert result.info["diverged"] == 5
    assert np.isnan(result.latents["words"]).all()


def test_a_strength_without_guidance_is_refused():
    with pytest.raises(SbmError, match="'sbm_vae' has no guidance"):
        _generate(SYSTEMS["sbm_vae"], {}, 1.0, observed=[False] * 3)


def test_a_strength_of_the_wrong_shape_is_refused(guided):
    system, products = guided
    with pytest.raises(SbmError, match="one for each of 5 rows"):
        _generate(system, products, jnp.ones(3))


def test_marginal_guidance_is_the_difference_to_scores_of_modalities_alone(monkeypatch):
    """s + w (s - Σ s_m): the second network call sees every modality alone."""
    system = SYSTEMS["sbm_vae_m"]
    made = dict(_fresh(system))
    rng = np.random.default_rng(0)
    name = system.score_stage_name
    made[name] = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), made[name])
    observed = jnp.zeros((2, 3), bool).at[0, 0].set(True)
    context = system.context(2).replace(observed=observed)
    z, t = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32), jnp.full((2, 3), 0.4)
    z = jnp.where(context.valid[None], z, 0.0)
    (transform,) = system._transforms(made, context, z, OPTIONS, jnp.float32(1.5), None)
    score_fn = system.score_model.bind(made[name], context, z)
    guided = transform(score_fn, context)(jax.random.key(0), z, t)
    joint = score_fn(jax.random.key(0), z, t)
    alone = jnp.zeros_like(joint)
    for m in range(3):
        only = context.replace(observed=jnp.zeros_like(observed), present=jnp.arange(3)[None] == jnp.full((2, 1), m))
        own = system.score_model.bind(made[name], only, z)(jax.random.key(0), z, t)
        alone = alone.at[:, m].set(own[:, m])
    expected = jnp.where(context.free, joint + 1.5 * (joint - alone), 0.0)
    np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-4)


def test_marginal_guidance_needs_a_network_that_learned_marginals():
    with pytest.raises(SbmError, match="probability_alone"):
        SbmMarginal("sbm_vae_m", MODALITIES, CONFIG)
    mlp = dataclasses.replace(ALONE, score=dataclasses.replace(ALONE.score, network=ScoreNetworkConfig("mlp", 32, 1)))
    with pytest.raises(SbmError, match="can not see modalities alone"):
        SbmMarginal("sbm_vae_m", MODALITIES, mlp).check(OPTIONS)


@pytest.mark.parametrize("name", ["sbm_vae_c", "sbm_rae_t", "sbm_vae_m"])
def test_bounding_the_unobserved_and_cutting_into_chunks_changes_nothing(name):
    system = SYSTEMS[name]
    made = _fresh(system)
    data, mask = _float(DATASET.test), np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)

    def latents(num_free, **changes):
        options = dataclasses.replace(OPTIONS, **changes)
        run = jax.jit(lambda: system.generate(made, jax.random.key(0), data, mask, options, num_free=num_free).latents)
        return run()

    whole = latents(None)
    for other in (latents(2), latents(None, chunk_size=2)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), whole, other)


def test_gaussian_start():
    options = dataclasses.replace(OPTIONS, start="gaussian", start_time=0.7)
    system = SYSTEMS["sbm_vae"]
    made = _fresh(system)
    result = _generate(system, made, options=options)
    assert not result.info["diverged"]
    assert np.isfinite(result.latents["words"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioning": "reference", "chunk_size": 2}, "chunk_size to 0"),
        ({"conditioning": "reference", "resampling": 2}, "resampling to 1"),
        ({"conditioning": "particles", "start": "gaussian"}, "starts from the prior"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(SbmError, match=message):
        dataclasses.replace(OPTIONS, **changes)


def test_a_score_model_is_refused_what_it_was_not_trained_for():
    single = dataclasses.replace(CONFIG, score=dataclasses.replace(CONFIG.score, probability_none=1.0))
    with pytest.raises(SbmError, match="single time"):
        dataclasses.replace(SYSTEMS["sbm_vae"], config=single).check(OPTIONS)
    with pytest.raises(SbmError, match="embeddings of observed ones only"):
        SYSTEMS["sbm_rae_t"].check(dataclasses.replace(OPTIONS, conditioning="clean"))


@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (2,)])
def test_an_observed_mask_of_the_wrong_shape_is_refused(shape):
    system = SYSTEMS["sbm_vae"]
    with pytest.raises(SbmError, match=r"observed must be bool \[5, 3\]"):
        system.generate({}, jax.random.key(0), _float(DATASET.test), np.zeros(shape, bool), OPTIONS)


def test_a_strength_of_any_form_compiles_once(guided):
    system, products = guided
    generate = make_generate(system, products, OPTIONS)
    data, mask = _float(DATASET.test), np.broadcast_to([True, False, False], (5, 3))
    with pytest.MonkeyPatch.context() as patch:
        traces = []
        original = type(system).generate
        patch.setattr(type(system), "generate", lambda *a, **k: traces.append(1) or original(*a, **k))
        for strength in (0.5, 1, np.float64(2.0), np.ones(5, np.float32)):
            generate(jax.random.key(0), data, mask, 1, strength)
    assert len(traces) == 1


# MARK: Rows that lack modalities


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


@pytest.mark.parametrize("name", ["sbm_vae_c", "sbm_rae_t", "sbm_vae_f"])  # every kind of stage
def test_what_a_row_lacks_changes_nothing(name):
    system = SYSTEMS[name]
    first, second = (_made(system, _lacking(other_values)) for other_values in (False, True))
    assert not np.asarray(first[0][system.latent_space.bank_stage]["train"]["present"]).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, second)


@pytest.mark.parametrize("name", ["sbm_vae_c", "sbm_rae_t"])
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
    space = LatentSpace(MODALITIES, _aligned())
    params = space.autoencoders.init(jax.random.key(0))
    rows = (jax.tree.map(jnp.asarray, space.rows(_lacking(other).train)) for other in (False, True))
    losses = [space._autoencoder_loss(params, {}, jax.random.key(1), batch) for batch in rows]
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


# MARK: Likelihood


def test_log_weights_have_the_density_of_the_score_model():
    """A fresh network's velocity is 0, with which latents are N(0, I) at all times: their density is known."""
    system = SYSTEMS["sbm_vae"]
    products, data = _fresh(system), _float(DATASET.test)
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
    likelihood = np.asarray(space.log_likelihood(products, data, jnp.asarray(draws, jnp.float32))).sum(axis=-1)
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
        params = system._init_encoders(jax.random.key(1))
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape) if leaf.ndim else leaf, params)
        plain = system._embeddings(params, {"one": x, "two": x})
        np.testing.assert_allclose(plain[:, 0], plain[:, 1], rtol=1e-5, atol=1e-6)
        dropped = system._embeddings(params, {"one": x, "two": x}, jax.random.key(2))
        assert not np.allclose(dropped[:, 0], dropped[:, 1], atol=1e-2)


# MARK: Diverged rows


def test_fine_tuning_learns_nothing_from_rows_that_diverge(monkeypatch):
    """A row whose sample is NaN changes neither the loss nor a gradient, and is counted."""
    system = SYSTEMS["sbm_vae_f"]
    made, rows = _fresh(system), DATASET.train.rows(MODALITY_NAMES)
    stage = system.stages(DATASET)[-1]
    sample_latents, lost = Sbm.sample_latents, np.arange(10) == 3

    def loss(diverging, batch):
        def sampled(*arguments, **named):
            found = sample_latents(*arguments, **named)
            diverged = jnp.asarray(diverging)
            return found._replace(z=jnp.where(diverged[:, None, None], jnp.nan, found.z), diverged=diverged)

        monkeypatch.setattr(Sbm, "sample_latents", sampled)
        params = made[system.decoder_stage]
        return jax.value_and_grad(lambda p: stage.loss(p, made, jax.random.key(5), batch), has_aux=True)(params)

    (value, metrics), gradient = loss(lost, rows)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert metrics["diverged"] == pytest.approx(0.1)
    spoiled = {name: np.array(values) for name, values in rows["data"].items()}
    for values in spoiled.values():
        values[3] = 0
    (other, _), _ = loss(lost, {**rows, "data": spoiled})
    np.testing.assert_allclose(value, other, rtol=1e-5)
    (everything, _), _ = loss(np.zeros(10, bool), rows)
    assert not np.isclose(value, everything, rtol=1e-5)
