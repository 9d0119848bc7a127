"""Diffusion decoders over frozen latents: what they draw, what they leave alone, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data import hide
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import ExperimentConfig, apply_changes, make_system
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, Codecs
from sbm_jax.networks.denoisers import DenoiserConfig
from sbm_jax.networks.diffusion_decoder_config import DiffusionDecoderConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import HasCodecs, SparesObserved
from sbm_jax.systems.diffusion_decoding import DiffusionDecoded, WithCodecs, make_groups, over
from sbm_jax.systems.diffusion_decoding_config import DiffusionDecodingConfig
from sbm_jax.systems.joinings import DiffMvae, DiffMvaeStar, Mmvae, MmvaePlus, Mopoe, Mvtcae
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.systems.methods import METHODS
from sbm_jax.systems.observed import numbers_of
from sbm_jax.types import CodecConfig, Dataset, Modality, Split, TrainingConfig
from tests.systems.sbm_cases import DATASET, MODALITIES, OPTIONS, SYSTEMS, as_floats, fresh

CONFIG = DiffusionDecodingConfig(
    decoder=DiffusionDecoderConfig(DenoiserConfig(width=8, depth=1)),
    map_network=CodecConfig("patch", {"widths": (8,)}),
    map_channels=2,
    training=TrainingConfig(2, 4),
)
BOTH = dataclasses.replace(CONFIG, modalities=("image", "mask"))
JOINT = JointPosteriorConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,)), latent_size=4)
MOPOE = JointPosterior("mopoe", MODALITIES, JOINT, Mopoe())
MVTCAE = JointPosterior("mvtcae", MODALITIES, JOINT, Mvtcae())
BASES = {**SYSTEMS, "mopoe": MOPOE, "mvtcae": MVTCAE}


def _decoded(base="sbm_vae", config=CONFIG):
    system = BASES[base]
    kind = WithCodecs if isinstance(system, HasCodecs) else DiffusionDecoded
    return kind(f"{base}_diffusion", system, config)


def _generated(system, observed=(True, False, False), num_samples=2):
    data, products = as_floats(DATASET.test), fresh(system)
    run = jax.jit(lambda key: system.generate(products, key, data, jnp.array(observed), OPTIONS, num_samples))
    return run(jax.random.key(3)), data


@pytest.mark.parametrize("base", ["sbm_vae", "sbm_rae", "sbm_vae_f", "mopoe"])
def test_pictures_are_drawn_and_the_rest_is_left_alone(base):
    system = _decoded(base)
    system.check(OPTIONS)
    found, _ = _generated(system, (False, False, False))
    products = fresh(system)
    run = jax.jit(lambda key: system.base.generate(products, key, {}, jnp.zeros((5, 3), bool), OPTIONS, 2))
    means = run(jax.random.key(3))  # what the system generates without diffusion decoders
    np.testing.assert_allclose(found.data["words"], means.data["words"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.data["mask"], means.data["mask"], rtol=1e-5, atol=1e-6)  # not Gaussian
    assert not np.allclose(found.data["image"], means.data["image"], atol=1e-2)
    assert found.info["decoder_evaluations"] == 4


def test_what_is_observed_comes_back_unchanged():
    found, data = _generated(_decoded(config=BOTH))
    np.testing.assert_array_equal(found.data["image"], np.repeat(data["image"][:, None], 2, axis=1).astype(np.float32))
    assert found.data["mask"].min() >= 0
    assert found.data["mask"].max() <= 1


def test_codecs_are_judged_without_them():
    """Errors of codecs are those of means, and not of what is drawn."""
    system = _decoded()
    data, products = as_floats(DATASET.test), fresh(system)
    means = system.base.reconstruct(products, data)
    np.testing.assert_allclose(system.codec_reconstructions(products, data)["image"], means["image"])
    assert not np.allclose(system.reconstruct(products, data)["image"], means["image"], atol=1e-2)


@pytest.mark.parametrize("base", ["sbm_vae", "mopoe"])
def test_sparing_what_is_observed_changes_no_sample(base):
    system = _decoded(base, BOTH)
    assert isinstance(system, SparesObserved)
    observed = (True, True, False)
    whole, spared = (_generated(one, observed)[0].data for one in (system, system.with_free(1)))
    for name in whole:
        np.testing.assert_allclose(whole[name], spared[name], rtol=1e-4, atol=1e-4, err_msg=name)


def _with_codec(system):
    """Return a system whose images have a diffusion codec."""
    image = dataclasses.replace(MODALITIES[0], codec=CodecConfig("diffusion", CODEC))
    return dataclasses.replace(system, modalities=(image, *MODALITIES[1:]))


@pytest.mark.parametrize(
    "make",
    [lambda: _decoded("mopoe", BOTH), lambda: _with_codec(MOPOE), lambda: _with_codec(SYSTEMS["sbm_vae"])],
    ids=["stage", "joint codec", "codec"],
)
def test_reconstructions_are_those_of_rows_whatever_the_batch(make):
    system = make()
    products = jax.tree.map(lambda leaf: leaf + 0.01 if leaf.dtype == jnp.float32 else leaf, fresh(system))
    data, run = as_floats(DATASET.test), jax.jit(lambda data: system.reconstruct(products, data)["image"])
    whole = run(data)
    parts = [run({name: array[part] for name, array in data.items()}) for part in (slice(2), slice(2, None))]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), rtol=1e-4, atol=1e-4)
    twins = run({name: jnp.repeat(array[:1], 2, axis=0) for name, array in data.items()})
    np.testing.assert_allclose(*twins, rtol=1e-4, atol=1e-4)
    assert len({*np.asarray(numbers_of(data)).tolist()}) == len(whole)


PICTURES = tuple(Modality(name, (8, 8, 1), 3, CodecConfig("patch")) for name in "abc")
SHARED = DiffusionDecoded("mopoe_diffusion", JointPosterior("mopoe", PICTURES, JOINT, Mopoe()), CONFIG)


def _pictures(rows=5):
    keys = jax.random.split(jax.random.key(7), 3)
    return {name: jax.random.normal(key, (rows, 8, 8, 1)) for name, key in zip("abc", keys, strict=True)}


def _shared_products():
    """Products in which what begins at 0 does so no longer, so that all of the condition matters."""
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), fresh(SHARED)
    )


def test_a_shared_network_draws_the_same_whatever_is_spared():
    products, data = _shared_products(), _pictures()
    observed = np.array(
        [[True, True, False], [False, True, True], [True, False, True], [True] * 3, [True, True, False]]
    )
    whole, spared = (
        jax.jit(lambda system=system: system.generate(products, jax.random.key(3), data, observed, OPTIONS, 2))()
        for system in (SHARED, SHARED.with_free(1))
    )
    for name in "abc":
        np.testing.assert_allclose(whole.data[name], spared.data[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert not np.allclose(whole.data["c"][0, 0], whole.data["c"][0, 1], atol=1e-2)


def test_a_shared_network_is_given_which_picture_it_draws():
    products = _shared_products()
    (group,) = SHARED.groups
    params, x = products["diffusion_decoder_mopoe_a_and_2_more"], jnp.zeros((2, 8, 8, 1))
    drawn = [
        group.decoder.sample(params, jax.random.key(0), group.condition(x, None, jnp.full(2, k))).z for k in (0, 1)
    ]
    assert not np.allclose(*drawn, atol=1e-3)


def test_rows_of_a_shared_network_learn_from_their_own_pictures():
    """The objective of one batch is the mean over its rows and pictures, each given its own condition."""
    products, data = _shared_products(), _pictures(6)
    split = Split({name: np.asarray(array) for name, array in data.items()})
    stage = SHARED.stages(Dataset(split, split, split, {}, {}))[-1]
    loss = jax.jit(lambda batch: stage.loss(products[stage.name], products, jax.random.key(0), batch)[0])
    whole = float(loss({"data": data}))
    for name in "abc":
        swapped = {**data, name: data[name][::-1]}
        assert abs(float(loss({"data": swapped})) - whole) > 1e-4, name


def test_what_all_rows_have_is_not_drawn():
    products, data = _shared_products(), _pictures()
    run = jax.jit(lambda observed: SHARED.generate(products, jax.random.key(3), data, observed, OPTIONS).info)
    assert run(jnp.array([True] * 3))["decoder_evaluations"] == 0
    assert run(jnp.array([True, True, False]))["decoder_evaluations"] == 4


def _drawn_by_codecs(base, **sampler):
    """A system of which a codec draws the image."""
    codec = CodecConfig("diffusion", {**CODEC, "decoder": {**CODEC["decoder"], "sampler": sampler}})
    modalities = tuple(dataclasses.replace(m, codec=codec) if m.name == "image" else m for m in MODALITIES)
    return dataclasses.replace(BASES[base], modalities=modalities)


@pytest.mark.parametrize("base", ["sbm_vae", "mopoe"])
def test_a_stage_knows_how_what_it_learns_from_was_drawn(base):
    settings = []
    for steps in (1, 7):
        system = DiffusionDecoded("diffusion", _drawn_by_codecs(base, num_steps=steps), CONFIG)
        settings.append([dict(stage.settings) for stage in system.stages(DATASET)])
    assert settings[0][:-1] == settings[1][:-1]
    assert settings[0][-1] != settings[1][-1]


@pytest.mark.parametrize("base", ["sbm_vae", "mopoe"])
def test_codecs_that_draw_tell_what_it_costs_and_what_is_lost(base):
    system, data = _drawn_by_codecs(base, num_steps=3), as_floats(DATASET.test)
    run = jax.jit(lambda products, observed: system.generate(products, jax.random.key(3), data, observed, OPTIONS))
    products = fresh(system)
    nothing, image = jnp.zeros(3, bool), jnp.array([True, False, False])
    assert run(products, nothing).info["decoder_evaluations"] == 3
    assert run(products, nothing).info["diverged"] == 0
    assert run(products, image).info["decoder_evaluations"] == 0

    def lost(path, leaf):
        return jnp.full_like(leaf, jnp.nan) if "denoiser" in jax.tree_util.keystr(path) else leaf

    broken = jax.tree_util.tree_map_with_path(lost, products)
    assert run(broken, nothing).info["diverged"] == 5
    assert run(broken, image).info["diverged"] == 0


def test_equal_codecs_draw_alike():
    codecs = [CodecConfig("diffusion", {"decoder": {"sampler": {"num_steps": steps}}}) for steps in (4, 9)]
    modalities = tuple(dataclasses.replace(PICTURES[0], name=f"p{i}", codec=codec) for i, codec in enumerate(codecs))
    with pytest.raises(
        SbmError, match="'p1' has the same training settings as another modality, but different sampling options"
    ):
        Codecs(modalities, AutoencoderNetworkConfig(), batched=False)


def test_guided_codecs_have_no_likelihood():
    for guidance, has in ((0.0, True), (1.5, False)):
        decoder = {**CODEC["decoder"], "guidance": guidance, "condition_dropout": 0.1}
        system = JointPosterior("diff_mvae", MODALITIES, JOINT, DiffMvae(codec={**CODEC, "decoder": decoder}))
        assert system.has_likelihood == has


@pytest.mark.parametrize("condition", [("picture",), ("latent",), ("map",), ("picture", "map", "latent")], ids="+".join)
@pytest.mark.slow
def test_they_learn_from_their_condition(condition):
    system = _decoded(config=dataclasses.replace(CONFIG, condition=condition))
    system.check(OPTIONS)
    stage, products = system.stages(DATASET)[-1], fresh(system)
    batch = jax.tree.map(lambda rows: rows[:4], stage.rows(products))
    loss = jax.jit(lambda params, key: stage.loss(params, products, key, batch)[0])
    gradient = jax.jit(jax.grad(loss))(products[stage.name], jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert float(loss(products[stage.name], jax.random.key(0))) > 0
    assert {*system.reconstruct(products, as_floats(DATASET.test))} == {"image", "words", "mask"}


def test_nothing_is_trained_again():
    system, names = _decoded(), [stage.name for stage in SYSTEMS["sbm_vae"].stages(DATASET)]
    stages = system.stages(DATASET)
    assert [stage.name for stage in stages] == [*names, "diffusion_decoder_vae_image"]
    assert [dict(stage.settings) for stage in stages[:-1]] == [
        dict(stage.settings) for stage in SYSTEMS["sbm_vae"].stages(DATASET)
    ]
    sampler = dataclasses.replace(CONFIG.decoder.sampler, num_steps=9)
    faster = dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder, sampler=sampler))
    assert _decoded(config=faster).stages(DATASET)[-1].settings == stages[-1].settings


@pytest.mark.parametrize("base", ["sbm_vae", "mopoe", "mvtcae"])
def test_what_rows_lack_changes_no_loss(base):
    system = _decoded(base)
    dataset = DATASET._replace(train=hide(DATASET.train, 0.5, 0), validation=hide(DATASET.validation, 0.5, 1))
    stage, products = system.stages(dataset)[-1], fresh(system)
    batch = jax.tree.map(lambda rows: np.array(rows[:8]), stage.rows(products))
    other = {**batch, "data": {name: array.copy() for name, array in batch["data"].items()}}
    for number, name in enumerate(modality.name for modality in MODALITIES):
        lacks = ~batch["present"][:, number]
        assert lacks.any()
        assert not lacks.all()
        other["data"][name][lacks] = 1 - other["data"][name][lacks]
    loss = jax.jit(lambda batch: stage.loss(products[stage.name], products, jax.random.key(0), batch)[0])
    np.testing.assert_allclose(loss(batch), loss(other), rtol=1e-6)


def test_equal_pictures_share_a_network():
    photo = Modality("photo", (8, 8, 1), 4, "patch", bounds=(0.0, 1.0))
    other, large = dataclasses.replace(photo, name="other"), dataclasses.replace(photo, name="large", shape=(9, 8, 1))
    names = [group.names for group in make_groups((photo, large, other), CONFIG)]
    assert names == [("photo", "other"), ("large",)]
    alone = dataclasses.replace(CONFIG, shared=False)
    assert [group.names for group in make_groups((photo, large, other), alone)] == [("photo",), ("large",), ("other",)]


@pytest.mark.parametrize(("group", "field"), [("diffusion_decoder", "modalities"), ("diff_mvae", "diffused")])
def test_decoders_go_to_those_that_are_there_of_those_that_are_named(group, field):
    """A variation may leave some of them out; what no experiment has is refused with its config."""
    pictures = [dataclasses.replace(one, codec=CodecConfig("patch", {"widths": (8,)})) for one in PICTURES]
    values = {"modalities": pictures, "methods": {group: {field: ("b", "c")}}}
    config = ExperimentConfig(**values, systems=("mopoe_diffusion", "diff_mvae"))
    less = apply_changes(config, {"joint": ("a", "c")})
    system = make_system(less, "diff_mvae" if field == "diffused" else "mopoe_diffusion")
    if field == "diffused":
        assert [modality.codec.name for modality in system.decoded_modalities] == ["patch", "diffusion"]
    else:
        assert [drawn.names for drawn in system.groups] == [("c",)]
    with pytest.raises(SbmError, match="is modelled"):
        make_system(apply_changes(config, {"joint": ("a",)}), system.name).check(OPTIONS)
    with pytest.raises(SbmError, match=f"{group}.{field}.*'d'"):
        ExperimentConfig(**{**values, "methods": {group: {field: ("b", "d")}}})


def test_all_methods_can_have_them():
    plain = [name for name in METHODS if not name.endswith("_diffusion") and name != "supervised"]
    assert {f"{name}_diffusion" for name in plain} | {*plain, "supervised"} == {*METHODS}
    assert over(METHODS["mld"]).name == "mld_diffusion"


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("sbm_vae", {"modalities": ("photo",)}, "none of its modalities, photo, is modelled"),
        ("sbm_vae", {"modalities": ("words",)}, "sample images"),
        ("mopoe", {"condition": ("latent",)}, r"set methods.diffusion_decoder.condition to \('picture',\)"),
    ],
)
def test_what_can_not_be_drawn_is_refused(base, changes, message):
    with pytest.raises(SbmError, match=message):
        _decoded(base, dataclasses.replace(CONFIG, **changes)).check(OPTIONS)


@pytest.mark.parametrize("options", [{"condition": ()}, {"condition": ("mean",)}, {"map_channels": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(SbmError, match=r"methods\.diffusion_decoder"):
        DiffusionDecodingConfig(**options)


# MARK: Diff-MVAE

CODEC = {
    "trunk": {"name": "patch", "network": {"widths": (8,)}},
    "map_channels": 2,
    "decoder": {"network": {"width": 8, "depth": 1}},
}


def test_diff_mvae_has_diffusion_decoders_for_pictures_and_others_for_the_rest():
    system = JointPosterior("diff_mvae", MODALITIES, JOINT, DiffMvae(codec=CODEC))
    system.check(OPTIONS)
    assert [modality.codec.name for modality in system.decoded_modalities] == ["diffusion", "mlp", "patch"]
    assert system.joining.factors(MODALITIES) == (1 / 64, 1 / 6, 1 / 64)
    data = {name: jnp.asarray(array, jnp.float32) for name, array in as_floats(DATASET.test).items()}
    products = fresh(system)
    weights = jax.jit(lambda key: system.log_weights(products, key, data, 3))(jax.random.key(0))
    assert weights.shape == (5, 3)
    assert np.isfinite(weights).all()
    assert system.has_costly_density  # a weight is an estimate, of which only the mean means something
    assert not MOPOE.has_costly_density


def test_diff_mvae_and_its_star_differ_in_what_trains_them():
    found = [one(codec=CODEC).decoded(MODALITIES[0]).codec.network["decoder"] for one in (DiffMvae, DiffMvaeStar)]
    assert [one.pop("weighting") for one in found] == ["likelihood", "noise"]
    assert found == [CODEC["decoder"], {**CODEC["decoder"], "num_times": 1000}]
    own = {"decoder": {"weighting": "velocity"}}
    assert DiffMvae(codec=own).decoded(MODALITIES[0]).codec.network == own


OWN = {"trunk": {"name": "patch", "network": {"widths": (4,)}}, "decoder": {"network": {"width": 4}}}


def test_a_modality_that_names_a_diffusion_codec_keeps_its_options():
    named = dataclasses.replace(PICTURES[0], codec=CodecConfig("diffusion", OWN))
    for method in (DiffMvae, DiffMvaeStar):
        system = JointPosterior(method.name, (named, *PICTURES[1:]), JOINT, method(codec=CODEC))
        system.check(OPTIONS)
        own, *others = (modality.codec.network for modality in system.decoded_modalities)
        assert own == {**OWN, "decoder": {**OWN["decoder"], **method.objective}}  # what trains it is the method's
        assert all(other == {**CODEC, "decoder": {**CODEC["decoder"], **method.objective}} for other in others)
    chosen = {"decoder": {"weighting": "velocity"}}
    named = dataclasses.replace(named, codec=CodecConfig("diffusion", chosen))
    assert DiffMvae(codec=CODEC, diffused=("b",)).decoded(named).codec.network == chosen


DIFF_MVAE = JointPosterior("diff_mvae", MODALITIES, JOINT, DiffMvae(codec=CODEC))


def _broken(tree):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)


def test_diff_mvae_tells_what_it_costs_and_what_is_lost():
    data = as_floats(DATASET.test)
    run = jax.jit(lambda products, observed: DIFF_MVAE.generate(products, jax.random.key(3), data, observed, OPTIONS))
    products, nothing = fresh(DIFF_MVAE), jnp.zeros(3, bool)
    whole = run(products, nothing)
    assert whole.info["decoder_evaluations"] == 4
    assert whole.info["diverged"] == 0
    (group,) = (name for name, codecs in products["diff_mvae"]["codecs"].items() if "denoiser" in codecs["decoder"])
    lost = jax.tree.map(lambda leaf: leaf, products)
    lost["diff_mvae"]["codecs"][group]["decoder"] = _broken(products["diff_mvae"]["codecs"][group]["decoder"])
    assert run(lost, nothing).info["diverged"] == 5  # rows, one picture of each of which is lost
    given = run(lost, jnp.array([True, False, False]))
    assert given.info["diverged"] == 0
    assert np.isfinite(given.data["image"]).all()


def test_an_unstable_sampler_is_refused_before_training():
    sampler = {"solver": "euler_maruyama", "num_steps": 10}
    codec = {**CODEC, "decoder": {**CODEC["decoder"], "sampler": sampler}}
    with pytest.raises(SbmError, match="10 steps are too few"):
        JointPosterior("diff_mvae", MODALITIES, JOINT, DiffMvae(codec=codec)).check(OPTIONS)


@pytest.mark.parametrize("base", ["sbm_vae", "mopoe"])
def test_a_lost_row_counts_once(base):
    system = _decoded(base, BOTH)
    products = fresh(system)
    run = jax.jit(lambda products: system.generate(products, jax.random.key(3), {}, jnp.zeros((5, 3), bool), OPTIONS))
    lost = {name: _broken(one) if name.startswith("diffusion_decoder") else one for name, one in products.items()}
    assert run(lost).info["diverged"] == 5
    assert (
        run({**lost, system.base.stage_names[0]: _broken(products[system.base.stage_names[0]])}).info["diverged"] == 5
    )


@pytest.mark.parametrize("joining", [MmvaePlus(), Mmvae()], ids=lambda joining: joining.name)
def test_importance_weights_want_likelihoods(joining):
    image = dataclasses.replace(MODALITIES[0], codec=CodecConfig("diffusion", CODEC))
    system = JointPosterior(joining.name, (image, *MODALITIES[1:]), JOINT, joining)
    with pytest.raises(SbmError, match="only bounds them"):
        system.check(SamplerOptions())


@pytest.mark.parametrize(
    ("joining", "modalities", "message"),
    [
        (DiffMvae(diffused=("photo",)), MODALITIES, "none of photo is modelled"),
        (DiffMvae(), MODALITIES[1:], "no modality is an image"),
        (DiffMvae(diffused=("words",)), MODALITIES, "needs the shape"),
    ],
)
def test_diff_mvae_refuses_what_is_no_picture(joining, modalities, message):
    with pytest.raises(SbmError, match=message):
        JointPosterior("diff_mvae", modalities, JOINT, joining).check(OPTIONS)
