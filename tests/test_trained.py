"""A loaded model: what its arguments may be, one program for all sets of given modalities, and what it gives back."""

import dataclasses
import gc
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sbm_jax
from sbm_jax import memory
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.runner import Runner
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.sbm import Sbm
from sbm_jax.systems.sbm_marginal import SbmMarginal
from sbm_jax.systems.score_stage import SbmConfig, ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.trained import TrainedSystem, _as_arrays
from sbm_jax.types import CodecConfig, Dataset, Modality, Split, TrainingConfig

MODALITIES = (
    Modality("photo", (8, 8, 3), 4, "patch", bounds=(0.0, 1.0)),
    Modality("words", (6,), 3, "mlp", "categorical"),
    Modality("mask", (8, 8, 1), 4, "patch", "bernoulli"),
    Modality("sound", (5,), 2, "mlp", bounds=(-0.5, 0.5)),
)
NAMES = [modality.name for modality in MODALITIES]
CONFIG = SbmConfig(
    AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,))),
    ScoreConfig(TrainingConfig(2, 4), ScoreNetworkConfig("transformer", 32, 1), probability_alone=0.2),
)
OPTIONS = SamplerOptions(num_steps=2)
ROWS = 8


def _data(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "photo": rng.random((ROWS, 8, 8, 3), np.float32),
        "words": np.eye(6, dtype=np.float32)[rng.integers(0, 6, ROWS)],
        "mask": rng.integers(0, 2, (ROWS, 8, 8, 1)).astype(np.float32),
        "sound": rng.uniform(-0.5, 0.5, (ROWS, 5)).astype(np.float32),
    }


def _trained(system):
    """A system whose parameters are drawn wide, so that decoders leave the bounds of their modalities."""
    dataset = Dataset(Split(_data(1)), Split(_data(2)), Split(_data(3)), {}, {})
    products = {}
    for stage in system.stages(dataset):
        products[stage.name] = stage.init(jax.random.key(0), products)
    rng, score = np.random.default_rng(0), system.score_stage_name  # its last layer starts at 0
    products[score] = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), products[score])
    for name in system.latent_space.stage_names[:-1]:
        products[name] = jax.tree.map(lambda leaf: 2.0 * leaf, products[name])
    return TrainedSystem(system, products, OPTIONS)


@pytest.fixture(scope="module")
def model():
    return _trained(Sbm("sbm_vae", MODALITIES, CONFIG))


@pytest.fixture(scope="module")
def guided():
    return _trained(SbmMarginal("sbm_vae_m", MODALITIES, CONFIG))


def _traced(monkeypatch, model):
    """Return a list that grows by one whenever `generate` is traced."""
    traces, original = [], type(model.system).generate
    monkeypatch.setattr(type(model.system), "generate", lambda *a, **k: traces.append(1) or original(*a, **k))
    return traces


# MARK: Programs


def test_all_sets_of_given_modalities_share_a_program(monkeypatch, model):
    """But for those with one free modality of four, and two: these run fewer tokens."""
    fresh, data = TrainedSystem(model.system, model.products, OPTIONS), _data()
    traces = _traced(monkeypatch, model)
    for names in ([], ["photo"], ["words"], ["mask"], ["sound"]):
        fresh.generate({name: data[name] for name in names}, batch_size=ROWS)
    assert len(traces) == 1
    for names in (["photo", "words"], ["mask", "sound"], ["photo", "sound"]):
        fresh.generate({name: data[name] for name in names})
    assert len(traces) == 2
    for name in NAMES:
        fresh.generate({other: data[other] for other in NAMES if other != name})
    assert len(traces) == 3


def test_what_is_not_given_changes_nothing(model):
    """Samples given one modality are those that the system makes without the arrays of the others."""
    data = {"photo": _data()["photo"]}
    mask = np.tile([name == "photo" for name in NAMES], (ROWS, 1))
    alone = jax.jit(lambda: model.system.generate(model.products, jax.random.key(0), data, mask, OPTIONS))()
    filled = model.generate(data)
    for name in NAMES[1:]:
        np.testing.assert_allclose(filled.data[name], alone.data[name], rtol=1e-3, atol=2e-4)


def test_only_the_programs_used_last_are_kept(monkeypatch, model):
    monkeypatch.setattr(Runner, "KEPT", 2)
    fresh = TrainedSystem(model.system, model.products, OPTIONS)
    traces = _traced(monkeypatch, model)
    for num_samples in (1, 2, 3):
        fresh.generate({}, batch_size=1, num_samples=num_samples)
    assert len(fresh._runner._programs) == 2
    fresh.generate({}, batch_size=1, num_samples=3)
    assert len(traces) == 3
    fresh.generate({}, batch_size=1, num_samples=1)
    assert len(traces) == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory maps are told by Linux only")
def test_what_is_dropped_gives_its_memory_maps_back(monkeypatch, model):
    """Else a process that calls with many settings reaches the system's limit of them."""
    monkeypatch.setattr(Runner, "KEPT", 1)
    fresh = TrainedSystem(model.system, model.products, OPTIONS)

    def maps_after(num_samples):
        fresh.generate({}, batch_size=1, num_samples=num_samples)
        gc.collect()
        return len(Path("/proc/self/maps").read_text().splitlines())

    before = maps_after(1)
    after = [maps_after(num_samples) for num_samples in range(2, 6)]
    assert max(after) - before < 200  # a program has some hundreds


def test_a_request_that_memory_can_not_hold_is_refused_before_it_is_made(model, monkeypatch):
    with pytest.raises(SbmError, match=r"needs [\d,.]+ TB of memory, but only .* is left"):
        model.generate({}, batch_size=1_000_000, num_samples=10_000)
    monkeypatch.setattr(memory, "available", lambda: 60_000.0)  # of which the samples alone are 51,264
    with pytest.raises(SbmError, match=r"generating 8 rows with 6 samples each needs .* but only 60,000 bytes is left"):
        model.generate({}, batch_size=8, num_samples=6)


# MARK: Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0; expected 1 or more"),
        ({"num_samples": 2.0}, "num_samples is 2.0; expected an integer"),
        ({"num_samples": True}, "num_samples is True"),
        ({"data": {}, "batch_size": -1}, "batch_size is -1"),
        ({"data": {}, "batch_size": "8"}, "batch_size is '8'"),
        ({"data": {}}, "give batch_size"),
        ({"batch_size": 3}, "same number of rows, not {'words': 8, 'batch_size': 3}"),
        ({"seed": None}, "seed is None"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": 2**63}, "64 bits"),
        ({"targets": "mask"}, r"such as \['mask'\]"),
        ({"targets": ["mesk"]}, "Did you mean 'mask'"),
        ({"targets": []}, "one or more of"),
        ({"targets": 3}, "targets is 3"),
        ({"data": np.zeros((8, 6))}, "of type ndarray"),
        ({"data": None}, "of type NoneType"),
        ({"data": {"words": [[1, 2], [3]]}}, r"'words' has the shape \[2\]"),
        ({"data": {"words": [[[1], [2]], [[3]]]}}, "rows of different shapes"),
        ({"data": {"words": [None, np.zeros(6)]}}, "'words' has None"),
        ({"data": {"mask": np.array([True, None], dtype=object)}}, "'mask' has None"),
        ({"data": {"photo": np.full((8, 8, 8, 3), np.nan)}}, "'photo' has NaN. If rows lack it, mark in observed"),
        ({"data": {"words": 3}}, "'words' is 3"),
        ({"data": {"words": np.ma.masked_array(np.zeros((8, 6)), True)}}, "masked array"),
        ({"data": {"wurds": np.zeros((8, 6))}}, "Did you mean 'words'"),
        ({"options": {"num_steps": 2}}, "expected sbm_jax.sampling.SamplerOptions"),
        ({"observed": np.ones((8, 4))}, r"float64 \[8, 4\]; expected bool \[8, 4\]"),
        ({"observed": np.ones((7, 4), bool)}, r"bool \[7, 4\]"),
        ({"observed": np.ones((8, 4), bool)}, "observed is True for photo, mask, sound"),
        ({"strength": 1.0}, "has no guidance"),
    ],
)
def test_an_argument_is_refused_in_words(model, arguments, message):
    with pytest.raises(SbmError, match=message):
        model.generate(**{"data": {"words": _data()["words"]}, **arguments})


def test_rows_are_read_as_fit_reads_them():
    waves = _as_arrays({"sound": [np.zeros(3), np.ones(5)]})["sound"]
    assert waves.dtype == object
    assert [len(wave) for wave in waves] == [3, 5]
    words = _as_arrays({"words": np.array(["a", "bird"], dtype=object)})["words"]
    assert words.dtype.kind == "U"
    assert words.tolist() == ["a", "bird"]


@pytest.mark.parametrize("strength", [np.nan, np.inf, -1.0, "1", [1.0, 2.0], [[1.0] * ROWS], 1e39, True])
def test_a_strength_is_refused_as_in_a_config(guided, strength):
    with pytest.raises(SbmError, match="strength is"):
        guided.generate({"words": _data()["words"]}, strength=strength)


def test_samples_that_diverge_are_told(guided):
    with pytest.warns(RuntimeWarning, match="8 of 8 samples diverged and are NaN"):
        out = guided.generate({"words": _data()["words"]}, strength=1e30)
    assert np.isnan(out.data["photo"]).all()


@pytest.mark.parametrize(("workdir", "message"), [(3, "workdir is 3"), (None, "workdir is None")])
def test_a_work_directory_is_a_path(workdir, message):
    with pytest.raises(SbmError, match=message):
        sbm_jax.load(workdir)


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SbmError, match=f"{tmp_path}/mine holds no finished run"):
        sbm_jax.load("~/mine")


@pytest.mark.parametrize("options", [{"num_steps": 3.0}, {"num_steps": "3"}, {"snr": np.nan}, {"unroll": True}])
def test_options_have_the_types_that_are_declared(options):
    """Equal ones of other types would be taken for each other where programs are looked up."""
    with pytest.raises(SbmError, match=next(iter(options))):
        SamplerOptions(**options)
    assert type(SamplerOptions(snr=1).snr) is float
    assert type(SamplerOptions(num_steps=np.int64(3)).num_steps) is int


def test_seeds_of_64_bits_differ(model):
    def drawn(seed):
        return model.generate({}, batch_size=1, seed=seed).data["photo"]

    samples = [drawn(seed) for seed in (0, 2**32, 1, 2**32 - 1, -1)]
    assert len({sample.tobytes() for sample in samples}) == 5
    np.testing.assert_array_equal(samples[0], drawn(np.int64(0)))


# MARK: What comes back


def test_what_is_generated_can_be_given(model):
    """Decoders leave the bounds, samples do not."""
    space = model.system.latent_space
    latents = {m.name: 3 * jnp.ones((1, m.latent_size)) for m in MODALITIES}
    raw = space.codecs.decode(space.params(model.products), latents)
    assert not -0.5 <= np.asarray(raw["sound"]).max() <= 0.5
    out = model.generate({}, batch_size=ROWS)
    for seed in range(3):
        again = {name: values[:, 0] for name, values in out.data.items()}
        out = model.generate(again, targets=NAMES, seed=seed)
        for name, values in again.items():
            np.testing.assert_array_equal(out.data[name][:, 0], values)
        out = model.generate({"words": again["words"]}, targets=NAMES, seed=seed)


def test_a_codec_is_saved_for_others(model, tmp_path):
    path = tmp_path / "photo.npz"
    model.save_codec("photo", path)
    photo = dataclasses.replace(MODALITIES[0], codec=CodecConfig("patch", weights=str(path)))
    (training,) = LatentSpace((photo,), CONFIG.autoencoder).trainings
    x = {"photo": jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 3)), jnp.float32)}
    space = model.system.latent_space
    expected, _ = space.codecs.encode(space.params(model.products), x)["photo"]
    np.testing.assert_allclose(training.codecs.encode(training.load(), x)["photo"][0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(SbmError, match=r"unknown modality: 'foto'\. Did you mean 'photo'"):
        model.save_codec("foto", path)


def test_rows_have_sets_of_their_own(model):
    """Each row is as if it had been given what it has alone, and what it lacks may be NaN."""
    data = _data()
    observed = np.tile([[True, False, False, False], [False, True, True, False]], (ROWS // 2, 1))
    spoiled = {
        name: np.where(has.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan).astype(np.float32)
        for (name, values), has in zip(data.items(), observed.T, strict=True)
    }
    out = model.generate(spoiled, observed=observed)
    assert list(out.data) == NAMES
    photo = model.generate({"photo": data["photo"]})
    both = model.generate({name: data[name] for name in ("words", "mask")})
    np.testing.assert_allclose(out.data["sound"][::2], photo.data["sound"][::2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.data["sound"][1::2], both.data["sound"][1::2], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out.data["photo"][::2, 0], data["photo"][::2])
    np.testing.assert_array_equal(out.data["words"][1::2, 0], data["words"][1::2])


def test_an_odd_number_of_rows_has_the_samples_of_its_rows(model):
    """Rows that fill up the devices are cut off again, and change nothing."""
    data = _data()["words"]
    whole, part = model.generate({"words": data}), model.generate({"words": data[:3]})
    for name in ("photo", "mask", "sound"):
        assert part.data[name].shape[0] == 3
        np.testing.assert_allclose(part.data[name], whole.data[name][:3], rtol=1e-4, atol=1e-5)


def test_a_model_is_pickled_at_any_time(model):
    data = {"words": _data()["words"]}
    before = model.generate(data)
    copy = pickle.loads(pickle.dumps(model))
    assert [m.name for m in copy.modalities] == NAMES
    jax.tree.map(np.testing.assert_array_equal, before.data, copy.generate(data).data)


def test_sampled_sets_do_not_need_a_config(model):
    """Another set of options than the model was trained with, of one step."""
    out = model.generate({}, batch_size=2, options=dataclasses.replace(OPTIONS, num_steps=1))
    assert out.info["network_evaluations"] == 1
