"""Guidance of SBM systems, and how its options and strengths act."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.runner import make_generate
from sbm_jax.systems.sbm_contrastive import SbmContrastive
from sbm_jax.systems.sbm_energy import SbmEnergy
from sbm_jax.systems.sbm_marginal import SbmMarginal
from tests.systems.sbm_cases import (
    ALONE,
    CONFIG,
    CONTRASTIVE,
    DATASET,
    ENERGY,
    MODALITIES,
    OPTIONS,
    SYSTEMS,
    as_floats,
    fresh,
    generated,
)


@pytest.fixture(scope="module", params=["sbm_vae_c", "sbm_rae_t", "sbm_vae_m"])
def guided(request):
    system = SYSTEMS[request.param]
    made = dict(fresh(system))
    rng = np.random.default_rng(0)
    for name in (system.score_stage_name, "energy_vae"):
        if name in made:
            made[name] = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), made[name])
    return system, made


def test_strength_0_is_no_guidance(guided):
    """The energy system without guidance is the plain system; the contrastive one is its conditional score."""
    system, products = guided
    none = generated(system, products, 0.0).latents
    if isinstance(system, (SbmEnergy, SbmMarginal)):
        plain = generated(SYSTEMS["sbm_vae"], products).latents
    else:
        bound = dataclasses.replace(system, contrastive=dataclasses.replace(CONTRASTIVE, strength=0.0))
        plain = generated(bound, products).latents
    # Two programs, which round differently; the last step divides what they round by σ = 0.02.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4), none, plain)
    some = generated(system, products, 1.0).latents
    assert not np.allclose(none["words"], some["words"], atol=5e-3)
    np.testing.assert_array_equal(none["image"], some["image"])  # observed


def test_sweeping_the_strength_compiles_once(guided):
    system, products = guided
    data, mask = as_floats(DATASET.test), np.broadcast_to([True, False, False], (5, 3))

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
    weak, strong = (generated(system, products, s).latents["words"] for s in (0.0, 2.0))
    mixed = generated(system, products, jnp.array([0.0, 2.0, 0.0, 2.0, 2.0])).latents["words"]
    np.testing.assert_allclose(mixed[::2][:2], weak[::2][:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[1::2], strong[1::2], rtol=1e-4, atol=1e-5)


def test_nothing_observed_is_not_guided(guided):
    system, products = guided
    nothing = [False] * 3
    weak, strong = (generated(system, products, s, observed=nothing).latents for s in (0.0, 3.0))
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
    result = generated(system, products, 0.5, options)
    assert not result.info["diverged"]
    assert np.isfinite(result.latents["words"]).all()


def test_a_wild_strength_is_reported_as_diverged(guided):
    system, products = guided
    result = generated(system, products, 1e8)
    assert result.info["diverged"] == 5
    assert np.isnan(result.latents["words"]).all()


def test_a_strength_without_guidance_is_refused():
    with pytest.raises(SbmError, match="'sbm_vae' has no guidance"):
        generated(SYSTEMS["sbm_vae"], {}, 1.0, observed=[False] * 3)


def test_a_strength_of_the_wrong_shape_is_refused(guided):
    system, products = guided
    with pytest.raises(SbmError, match="one for each of 5 rows"):
        generated(system, products, jnp.ones(3))


def test_marginal_guidance_is_the_difference_to_scores_of_modalities_alone(monkeypatch):
    """s + w (s - Σ s_m): the second network call sees every modality alone."""
    system = SYSTEMS["sbm_vae_m"]
    made = dict(fresh(system))
    rng = np.random.default_rng(0)
    name = system.score_stage_name
    made[name] = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), made[name])
    observed = jnp.zeros((2, 3), bool).at[0, 0].set(True)
    context = system.context(2).replace(observed=observed)
    z, t = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32), jnp.full((2, 3), 0.4)
    z = jnp.where(context.valid[None], z, 0.0)
    (transform,) = system._transforms(made, context, z, OPTIONS, jnp.float32(1.5))
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
    with pytest.raises(SbmError, match="cannot see modalities alone"):
        SbmMarginal("sbm_vae_m", MODALITIES, mlp).check(OPTIONS)


@pytest.mark.parametrize("name", ["sbm_vae_c", "sbm_rae_t", "sbm_vae_m"])
def test_bounding_the_unobserved_and_cutting_into_chunks_changes_nothing(name):
    system = SYSTEMS[name]
    made = fresh(system)
    data, mask = as_floats(DATASET.test), np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)

    def latents(system, **changes):
        options = dataclasses.replace(OPTIONS, **changes)
        return jax.jit(lambda: system.generate(made, jax.random.key(0), data, mask, options).latents)()

    whole = latents(system)
    for other in (latents(system.with_free(2)), latents(system, chunk_size=2)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), whole, other)


def test_gaussian_start():
    options = dataclasses.replace(OPTIONS, start="gaussian", start_time=0.7)
    system = SYSTEMS["sbm_vae"]
    made = fresh(system)
    result = generated(system, made, options=options)
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
    with pytest.raises(SbmError, match="embeddings of observed modalities only"):
        SYSTEMS["sbm_rae_t"].check(dataclasses.replace(OPTIONS, conditioning="clean"))


@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (2,)])
def test_an_observed_mask_of_the_wrong_shape_is_refused(shape):
    system = SYSTEMS["sbm_vae"]
    with pytest.raises(SbmError, match=r"observed must be bool \[5, 3\]"):
        system.generate({}, jax.random.key(0), as_floats(DATASET.test), np.zeros(shape, bool), OPTIONS)


def test_a_strength_of_any_form_compiles_once(guided):
    system, products = guided
    generate = make_generate(system, products, OPTIONS)
    data, mask = as_floats(DATASET.test), np.broadcast_to([True, False, False], (5, 3))
    with pytest.MonkeyPatch.context() as patch:
        traces = []
        original = type(system).generate
        patch.setattr(type(system), "generate", lambda *a, **k: traces.append(1) or original(*a, **k))
        for strength in (0.5, 1, np.float64(2.0), np.ones(5, np.float32)):
            generate(jax.random.key(0), data, mask, 1, strength)
    assert len(traces) == 1


def test_a_network_for_each_pair_guides_too():
    """Its loss has a gradient for each network, and strength changes what is sampled."""
    separate = dataclasses.replace(SYSTEMS["sbm_vae_c"], energy=dataclasses.replace(ENERGY, separate=True))
    products = dict(fresh(separate))
    stage = next(stage for stage in separate.stages(DATASET) if stage.name == separate.energy_stage)
    rows = stage.rows(products)

    def loss(params):
        return stage.loss(params, products, jax.random.key(0), rows)[0]

    gradients = jax.grad(loss)(products[separate.energy_stage])
    last = gradients["pairs"]["Dense_2"]["kernel"]
    assert (np.abs(last).sum(axis=(1, 2)) > 0).tolist() == [True, True, True]
    none, some = (generated(separate, products, strength).latents["words"] for strength in (0.0, 100.0))
    assert not np.allclose(none, some, atol=1e-3)
