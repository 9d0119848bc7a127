"""Diffusion decoders: exact answers of linear-Gaussian pictures, and their conditions."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import (
    AutoencoderNetworkConfig,
    Codecs,
    Objective,
    check_codec,
    make_codec,
    training_settings,
)
from sbm_jax.networks.denoisers import DENOISERS, DenoiserConfig, make_denoiser
from sbm_jax.networks.diffusion_decoder import Condition, DiffusionDecoder
from sbm_jax.networks.diffusion_decoder_config import DiffusionDecoderConfig, PictureSampler
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sampling.noise import row_normal
from sbm_jax.sde import SDEConfig
from sbm_jax.types import CodecConfig, Modality
from tests.networks.exact_denoiser import COVARIANCE, GAIN, SDE, SHAPE, SIZE

HERE = "tests.networks.exact_denoiser"
SOLVERS = {
    "dpm_solver_pp_2m": PictureSampler("dpm_solver_pp_2m", 40),
    "sde_dpm_solver_pp_2m": PictureSampler("sde_dpm_solver_pp_2m", 60),
    "heun": PictureSampler("heun", 30),
    "ddim": PictureSampler("ddim", 200),
    "euler_maruyama": PictureSampler("euler_maruyama", 400, grid="uniform"),
    "predictor_corrector": PictureSampler("predictor_corrector", 200, grid="uniform"),
    "corrector_predictor": PictureSampler("corrector_predictor", 200, grid="uniform"),
    "langevin": PictureSampler("langevin", 100, grid="log_snr", corrector_steps=60),
}


def _exact(bounds=(), **changes):
    config = DiffusionDecoderConfig(DenoiserConfig(f"{HERE}:Exact"), SDEConfig("vp"), "data", **changes)
    return DiffusionDecoder(SHAPE, bounds, config, latent_size=2, modulated=True)


def _units(bounds):
    """The half and the middle of a range: what pictures in the units of their data are, of those that are diffused."""
    return ((bounds[1] - bounds[0]) / 2, sum(bounds) / 2) if bounds else (1.0, 0.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_exact_denoiser_draws_from_the_exact_law(solver):
    _assert_draws_the_exact_law(_exact, solver)


@pytest.mark.parametrize("solver", ["dpm_solver_pp_2m", "sde_dpm_solver_pp_2m", "ddim"])
def test_with_the_default_process_and_prediction_too(solver):
    def decoder(bounds):
        config = DiffusionDecoderConfig(DenoiserConfig(f"{HERE}:ExactVelocity"))
        return DiffusionDecoder(SHAPE, bounds, config, latent_size=2, modulated=True)

    _assert_draws_the_exact_law(decoder, solver)


def _assert_draws_the_exact_law(decoder, solver):
    rows, bounds, latent = 4000, (-2.0, 4.0), np.array([0.5, -1.0], np.float32)
    condition = Condition(latent=jnp.broadcast_to(latent, (rows, 2)))
    result = jax.jit(lambda key: decoder(bounds).sample({}, key, condition, SOLVERS[solver]))(jax.random.key(0))
    assert not np.any(result.diverged)
    half, middle = _units(bounds)
    flat = np.asarray(result.z).reshape(rows, -1)
    np.testing.assert_allclose(flat.mean(axis=0), half * GAIN @ latent + middle, atol=0.12 * half)
    covariance = half**2 * COVARIANCE
    assert np.abs(np.cov(flat.T) - covariance).max() < 0.12 * covariance.max()


@pytest.mark.parametrize("bounds", [(), (-2.0, 4.0)], ids=["as they are", "within bounds"])
def test_the_bound_of_an_exact_denoiser_is_the_likelihood(bounds):
    half, middle = _units(bounds)
    rng, latent = np.random.default_rng(1), np.array([0.5, -1.0], np.float32)
    x = GAIN @ latent + rng.normal(size=(2, SIZE)) @ np.linalg.cholesky(COVARIANCE).T
    difference = x - GAIN @ latent
    exact = 0.5 * np.einsum("bi,ij,bj->b", difference, np.linalg.inv(COVARIANCE), difference)
    exact += 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1] + SIZE * math.log(half)
    decoder, repeats = _exact(bounds), 20_000
    x = jnp.asarray((half * x + middle).reshape(2, *SHAPE), jnp.float32)
    condition = Condition(latent=jnp.broadcast_to(latent, (repeats, 2)))
    for row, truth in enumerate(exact):
        many = jnp.broadcast_to(x[row], (repeats, *SHAPE))
        terms = np.asarray(jax.jit(lambda key, many=many: decoder.bound({}, key, many, condition))(jax.random.key(row)))
        error = terms.std() / repeats**0.5
        assert truth - 4 * error < terms.mean() < truth + 0.05 + 4 * error, (terms.mean(), truth, error)
    probes = 300  # of Hutchinson's estimator
    many, condition = jnp.repeat(x, probes, axis=0), Condition(latent=condition.latent[: 2 * probes])
    flow = jax.jit(lambda x: decoder.log_likelihood({}, jax.random.key(0), x, condition))(many).reshape(2, probes)
    error = 4 * np.asarray(flow).std(axis=1) / probes**0.5
    assert (np.abs(flow.mean(axis=1) + exact) < 0.1 + error).all(), (flow.mean(axis=1), exact, error)


def test_a_worse_denoiser_has_a_worse_bound():
    latent = jnp.broadcast_to(jnp.array([0.5, -1.0]), (4000, 2))
    x = (latent @ GAIN.T).reshape(-1, *SHAPE)
    right, wrong = (
        jax.jit(lambda condition: _exact().bound({}, jax.random.key(0), x, condition).mean())(Condition(latent=z))
        for z in (latent, latent + 0.5)
    )
    assert wrong > right + 1.0


def test_the_objective_of_the_likelihood_is_the_bound():
    x, condition = jnp.ones((5, *SHAPE)), Condition(latent=jnp.ones((5, 2)))
    decoder = _exact(weighting="likelihood")
    losses = decoder.loss({}, jax.random.key(1), x, condition, train=False)
    bound = decoder.bound({}, jax.random.split(jax.random.key(1))[1], x, condition)
    np.testing.assert_allclose(losses, bound, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 8])
def test_training_times(number):
    times = np.asarray(_exact(num_times=number)._times(jax.random.key(0), 1000))
    assert times.min() > 0
    assert times.max() <= 1
    assert len(np.unique(times)) == (number or 1000)


# MARK: Conditions


def test_a_picture_enters_as_in_diffusevae():
    """Formulation 1: the picture stands beside the noisy one, both in [-1, 1]; DDIM from noise, restated in NumPy."""
    options = PictureSampler("ddim", 3, grid="uniform", end_time=1e-3)
    config = DiffusionDecoderConfig(DenoiserConfig(f"{HERE}:Linear"), SDEConfig("vp"), "noise", sampler=options)
    decoder = DiffusionDecoder((4, 4, 2), (0.0, 1.0), config, has_picture=True)
    pictures = jax.random.uniform(jax.random.key(5), (3, 4, 4, 2))
    key = jax.random.key(0)
    found = decoder.sample({}, key, Condition(picture=pictures)).z
    x = np.asarray(row_normal(jax.random.split(key, 4)[0], pictures.shape), np.float64)
    beside = 2.0 * np.asarray(pictures, np.float64) - 1.0
    times = np.linspace(1.0, 1e-3, 4)
    levels = [tuple(float(value) for value in SDE.marginal(jnp.float32(t))) for t in times]
    x = x * math.hypot(*levels[0])
    for t, (alpha, sigma), (later_alpha, later_sigma) in zip(times, levels, levels[1:], strict=False):
        noise = 0.9 * x / math.hypot(alpha, sigma) - 0.2 * beside - 0.1 * t
        x = later_alpha * (x - sigma * noise) / alpha + later_sigma * noise
    np.testing.assert_allclose(found, (x + 1.0) / 2.0, rtol=2e-4, atol=2e-4)


def _small(**changes):
    config = DiffusionDecoderConfig(DenoiserConfig(width=8, depth=1), **changes)
    decoder = DiffusionDecoder((8, 8, 1), (0.0, 1.0), config, has_picture=True, latent_size=3, modulated=True)
    condition = Condition(picture=jax.random.uniform(jax.random.key(1), (5, 8, 8, 1)), latent=jnp.ones((5, 3)))
    params = decoder.init(jax.random.key(0), jax.tree.map(lambda array: array[:1], condition))
    noisy = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    return decoder, noisy, condition


def test_guidance_is_that_of_its_formula():
    """One step of DDIM is linear in the score, so with (1 + w) s(x | c) - w s(x) it ends at such a mixture."""
    decoder, params, condition = _small(condition_dropout=0.1)
    unconditional = Condition(
        *(None if value is None else jnp.zeros_like(value) for value in condition[:2]), condition.which
    )
    once = SamplerOptions("ddim", 1, grid="uniform", conditioning="clean", end_time=1e-3)
    if condition.picture is not None:  # zeros are what a picture of the middle is in the network's units
        unconditional = unconditional._replace(picture=decoder.restore(unconditional.picture))
    plain, nothing, strong = (
        decoder.sample(params, jax.random.key(2), which, once, guidance=w)
        for which, w in ((condition, None), (unconditional, None), (condition, 2.0))
    )
    np.testing.assert_allclose(strong.z, 3 * plain.z - 2 * nothing.z, rtol=1e-3, atol=1e-3)
    assert not np.allclose(plain.z, strong.z, atol=1e-3)
    assert strong.network_evaluations == 2 * plain.network_evaluations == 2


def test_the_strength_of_guidance_is_an_array_with_a_number_for_each_row():
    decoder, params, condition = _small(condition_dropout=0.1)
    draw = jax.jit(lambda w: decoder.sample(params, jax.random.key(2), condition, guidance=w).z)
    plain = decoder.sample(params, jax.random.key(2), condition).z
    np.testing.assert_allclose(draw(jnp.zeros(5)), plain, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(decoder.sample(params, jax.random.key(2), condition, guidance=0.0).z, plain)
    mixed, strong = (
        draw(jnp.array([0.0, 2.0, 0.0, 2.0, 0.0])),
        decoder.sample(params, jax.random.key(2), condition, guidance=2.0),
    )
    np.testing.assert_allclose(mixed[::2], plain[::2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mixed[1::2], strong.z[1::2], rtol=1e-4, atol=1e-4)


def test_conditions_matter():
    decoder, params, condition = _small()
    found = decoder.sample(params, jax.random.key(2), condition).z
    for name, value in condition._asdict().items():
        if value is not None:
            other = decoder.sample(params, jax.random.key(2), condition._replace(**{name: 1.0 - 0.5 * value})).z
            assert not np.allclose(found, other, atol=1e-4), name


def test_rows_do_not_depend_on_their_companions():
    decoder, params, condition = _small()
    whole = decoder.sample(params, jax.random.key(2), condition).z
    two = jax.tree.map(lambda array: array[3:], condition)
    part = decoder.sample(params, jax.random.key(2), two, row_numbers=jnp.arange(3, 5)).z
    np.testing.assert_allclose(whole[3:], part, rtol=1e-4, atol=1e-5)
    options = dataclasses.replace(decoder.config.sampler, chunk_size=2)
    np.testing.assert_allclose(
        whole, decoder.sample(params, jax.random.key(2), condition, options).z, rtol=1e-4, atol=1e-5
    )


def test_a_start_from_a_picture_stays_near_it():
    decoder, params, condition = _small()
    options = dataclasses.replace(decoder.config.sampler, start_time=0.05, num_steps=2, grid="uniform")
    near = decoder.sample(params, jax.random.key(2), condition, options).z
    assert np.abs(near - condition.picture).mean() < 0.3
    blind = dataclasses.replace(decoder, has_picture=False)
    with pytest.raises(SbmError, match="the condition, but the condition has none"):
        blind.sample(params, jax.random.key(2), Condition(latent=condition.latent), options)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"latent": None}, {}, r"expected .* latent \(3,\)"),
        ({"picture": None}, {}, r"expected .* picture \(8, 8, 1\)"),
        ({"picture": None, "latent": None}, {}, "Condition has nothing; expected"),
        ({"which": jnp.zeros(5, int)}, {}, "Condition has .*which"),
        ({"picture": jnp.ones((5, 8, 8, 2))}, {}, r"expected .*\(8, 8, 1\)"),
        ({"latent": jnp.ones((4, 3))}, {}, "expected a row for each"),
        ({"latent": jnp.ones((5, 2))}, {}, r"expected .* latent \(3,\)"),
        ({"picture": jnp.ones((0, 8, 8, 1)), "latent": jnp.ones((0, 3))}, {}, "number of images is 0"),
        ({}, {"row_numbers": jnp.arange(4)}, r"row_numbers have the shape \(4,\)"),
        ({}, {"guidance": 2.0}, r"guidance 2\.0 needs"),
        ({}, {"guidance": -1.0}, r"guidance is -1\.0; expected 0 or more"),
        ({}, {"options": SamplerOptions(conditioning="particles", num_particles=4)}, "conditioning is 'particles'"),
        ({}, {"guidance": jnp.ones(4)}, r"guidance has the shape \(4,\)"),
    ],
)
def test_what_can_not_be_drawn_is_refused(changes, options, message):
    decoder, params, condition = _small()
    with pytest.raises(SbmError, match=message):
        decoder.sample(params, jax.random.key(2), condition._replace(**changes), **options)


def test_what_has_no_likelihood_is_refused():
    decoder, params, condition = _small()
    with pytest.raises(SbmError, match="expected at least 1"):
        decoder.log_likelihood(params, jax.random.key(2), condition.picture, condition, num_steps=0)
    with pytest.raises(SbmError, match=r"latent \(3,\)"):
        decoder.log_likelihood(params, jax.random.key(2), condition.picture, condition._replace(latent=None))


@pytest.mark.parametrize("method", ["loss", "bound", "log_likelihood"])
@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (5, 8, 8, 2), (8, 8, 1)])
def test_data_of_another_shape_are_refused(method, shape):
    decoder, params, condition = _small()
    with pytest.raises(SbmError, match=r"and data of .*; expected .*data \(8, 8, 1\)"):
        getattr(decoder, method)(params, jax.random.key(2), jnp.ones(shape), condition)


def test_a_latent_enters_where_it_is_used():
    for sizes in ({"latent_size": 3}, {"modulated": True}):
        with pytest.raises(SbmError, match="latent_size is"):
            DiffusionDecoder((8, 8, 1), (), DiffusionDecoderConfig(), **sizes)


@pytest.mark.parametrize("prediction", ["noise", "score"])
def test_the_cosine_process_is_refused_where_it_multiplies_errors(prediction):
    with pytest.raises(SbmError, match="600 times"):
        DiffusionDecoderConfig(prediction=prediction)
    assert DiffusionDecoderConfig(prediction=prediction, sde=SDEConfig("vp")).weighting == "noise"
    assert DiffusionDecoderConfig(prediction="data").weighting == "data"


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (1.0, 1.0), (1.0,)])
def test_bounds_without_a_range_are_refused(bounds):
    with pytest.raises(SbmError, match="bounds"):
        DiffusionDecoder((8, 8, 1), bounds, DiffusionDecoderConfig())


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_pictures_of_a_codec_stay_in_the_range_of_their_likelihood(likelihood):
    modality = dataclasses.replace(MODALITY, likelihood=likelihood, bounds=())
    codec = make_codec(modality, AutoencoderNetworkConfig())
    drawn = codec.sample(codec.init(jax.random.key(0)), jax.random.key(1), jnp.ones((4, 3)))
    inside = bool(((drawn >= 0) & (drawn <= 1)).all())
    assert inside == (likelihood == "bernoulli")


def test_a_picture_that_is_not_finite_has_no_samples():
    decoder, params, condition = _small()
    lost = condition._replace(picture=condition.picture.at[1].set(jnp.nan))
    result = decoder.sample(params, jax.random.key(2), lost)
    assert np.asarray(result.diverged).tolist() == [False, True, False, False, False]
    assert np.isnan(result.z[1]).all()
    assert np.isfinite(np.delete(result.z, 1, axis=0)).all()


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_take_any_size(name):
    network = make_denoiser(DenoiserConfig(name, width=8, depth=1, multipliers=(1, 2), attention=(1,), dropout=0.5))
    x, t, vector = jnp.ones((2, 11, 6, 3)), jnp.ones(2), jnp.ones((2, 5))
    for maps in (x[..., :2], None):
        params = network.init(jax.random.key(0), x, t, maps, vector)
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # last layers begin with zeros
        plain = network.apply(params, x, t, maps, vector)
        assert plain.shape == x.shape
        dropout = {"dropout": jax.random.key(1)}
        assert not np.allclose(plain, network.apply(params, x, t, maps, vector, train=True, rngs=dropout))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weighting": "heavy"}, "weighting"),
        ({"prediction": "future"}, "prediction"),
        ({"guidance": 1.0}, "condition_dropout"),
        ({"condition_dropout": 1.0}, "less than 1"),
        ({"num_times": -1}, "num_times"),
        (
            {"sampler": PictureSampler(conditioning="replacement")},
            "sampler.conditioning is 'replacement'; expected 'clean'",
        ),
        ({"sampler": PictureSampler(resampling=2)}, "sampler.resampling is 2; expected 1"),
        ({"sde": SDEConfig("cosinus")}, "sde.name.*cosinus"),
        ({"network": {"name": "pach"}}, "denoiser.*pach"),
        ({"weighting": "likelihood", "num_times": 10}, "integrates over all times"),
        ({"network": {"name": "patch", "patch": 3}}, "a power of two"),
    ],
)
def test_bad_options_are_refused(values, message):
    network = values.pop("network", None)
    with pytest.raises(SbmError, match=message):
        DiffusionDecoderConfig(**values, **({"network": DenoiserConfig(**network)} if network else {}))


# MARK: The codec

SMALL = {
    "trunk": {"name": "patch", "network": {"widths": (8,)}},
    "map_channels": 2,
    "decoder": {
        "network": {"width": 8, "depth": 1},
        "sampler": {**dataclasses.asdict(DiffusionDecoderConfig().sampler)},
    },
}
MODALITY = Modality("photo", (8, 8, 1), 3, CodecConfig("diffusion", SMALL), bounds=(0.0, 1.0))


def _with(options):
    return dataclasses.replace(MODALITY, codec=CodecConfig("diffusion", options))


@pytest.mark.parametrize("condition", [("map",), ("latent",), ("map", "latent")], ids="+".join)
@pytest.mark.parametrize("trunk", ["patch", "residual_conv"])
def test_the_codec_keeps_its_contract(condition, trunk):
    options = {**SMALL, "condition": condition, "trunk": {"name": trunk, "network": {"widths": (8,)}}}
    check_codec(make_codec(_with(options), AutoencoderNetworkConfig()))


def test_two_codecs_with_equal_parameters_draw_different_noise():
    other = dataclasses.replace(MODALITY, name="other")
    codecs = Codecs((MODALITY, other), AutoencoderNetworkConfig(), batched=False)
    params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), codecs.init(jax.random.key(0)))
    z = jnp.ones((2, 3))
    drawn = codecs.generate(params, jax.random.key(1), {"photo": z, "other": z})
    assert not np.allclose(drawn["photo"], drawn["other"], atol=1e-3)
    x = jnp.full((2, 8, 8, 1), 0.5)
    losses = codecs.loss(params, jax.random.key(1), {"photo": x, "other": x}, {"photo": z, "other": z})
    assert not np.allclose(losses["photo"], losses["other"])


def test_validation_drops_nothing():
    decoder = {
        **SMALL["decoder"],
        "network": {**SMALL["decoder"]["network"], "dropout": 0.9},
        "condition_dropout": 0.9,
    }
    codecs = Codecs((_with({**SMALL, "decoder": decoder}),), AutoencoderNetworkConfig(), batched=False)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        codecs.init(jax.random.key(0)),
    )
    x, z = {"photo": jnp.full((4, 8, 8, 1), 0.5)}, {"photo": jnp.ones((4, 3))}
    key = jax.random.key(1)
    training, validation = (codecs.loss(params, key, x, z, train=train)["photo"] for train in (True, False))
    assert not np.allclose(training, validation, rtol=1e-3)
    whole = Codecs((_with(SMALL),), AutoencoderNetworkConfig(), batched=False)
    np.testing.assert_allclose(validation, whole.loss(params, key, x, z)["photo"], rtol=1e-5)
    probs = codecs.log_prob(params, key, x, {"photo": z["photo"][None]}, Objective.VALIDATION)
    np.testing.assert_allclose(-probs["photo"][0], validation, rtol=1e-5)


def test_how_it_draws_is_no_part_of_what_is_trained():
    slow = {**SMALL, "decoder": {**SMALL["decoder"], "sampler": {"num_steps": 50}}}
    assert training_settings(MODALITY) == training_settings(_with(slow))
    assert training_settings(_with({})) == training_settings(_with({"decoder": {"sampler": {"num_steps": 50}}}))


def test_where_the_bound_ends_is_a_part_of_what_is_trained():
    for weighting, matters in (("likelihood", True), ("noise", False)):
        decoder = {"weighting": weighting, "sampler": {"end_time": 1e-2}}
        found = [training_settings(_with({"decoder": one})) for one in (decoder, {"weighting": weighting})]
        assert (found[0] != found[1]) == matters


def test_a_codec_measures_its_likelihood_where_it_is_asked_to():
    exact = _with({**SMALL, "decoder": {**SMALL["decoder"], "likelihood_steps": 20}})
    assert training_settings(exact) == training_settings(MODALITY)
    bounded, measured = (make_codec(one, AutoencoderNetworkConfig()) for one in (MODALITY, exact))
    params = bounded.init(jax.random.key(0))
    rows = 256
    x = jnp.broadcast_to(jax.random.uniform(jax.random.key(1), (1, 8, 8, 1)), (rows, 8, 8, 1))
    z = jnp.ones((rows, 3))
    bounds, values = (
        np.asarray(jax.jit(codec.bound)(params, jax.random.key(2), x, z)) for codec in (bounded, measured)
    )
    error = np.hypot(bounds.std(), values.std()) / rows**0.5
    assert values.mean() < bounds.mean() + 4 * error
    assert values.std() < bounds.std()


def test_sizes_are_a_part_of_what_is_trained():
    wide = {**SMALL, "decoder": {"network": {"width": 16}}}
    assert training_settings(MODALITY) != training_settings(
        dataclasses.replace(MODALITY, codec=CodecConfig("diffusion", wide))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "mlp"}, "trunk"),
        ({"condition": ("picture",)}, "unknown choice in codec.network.condition"),
        ({"map_channels": 0}, "at least 1"),
        ({"decoder": {"sampler": {"start_time": 0.5}}}, "a diffusion codec has none"),
    ],
)
def test_bad_options_of_the_codec_are_refused(options, message):
    with pytest.raises(SbmError, match=message):
        make_codec(_with(options), AutoencoderNetworkConfig())


def test_memory_does_not_grow_with_the_steps():
    decoder, params, condition = _small()
    sizes = []
    for steps in (4, 64):
        options = dataclasses.replace(decoder.config.sampler, num_steps=steps)
        compiled = (
            jax.jit(lambda key, o=options: decoder.sample(params, key, condition, o).z)
            .lower(jax.random.key(0))
            .compile()
        )
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 1.1 * sizes[0]


def test_coarse_blocks_see_the_whole_picture():
    """What changes in one corner is seen in the opposite one, beyond what norms tell."""
    x, t = jnp.zeros((1, 21, 18, 1)), jnp.full(1, 0.5)
    corner = x.at[0, 0, 0].set(5.0)
    reached = {}
    for width in (0, 8):
        network = make_denoiser(DenoiserConfig(width=8, depth=1, patch=1, coarse_width=width))
        params = network.init(jax.random.key(0), x, t, None, None)
        plain, changed = (network.apply(params, value, t, None, None) for value in (x, corner))
        assert plain.shape == x.shape
        reached[width] = float(jnp.abs(changed - plain)[0, -2:, -2:].max())
    assert reached[8] > 3 * reached[0]
