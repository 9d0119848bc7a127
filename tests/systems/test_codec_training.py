"""Stage I: a stage for each codec, learned scales, codecs from files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, files, make_codec
from sbm_jax.systems.codec_training import CodecTraining
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training.stages import fingerprints
from sbm_jax.types import CodecConfig, Dataset, Modality, Split, TrainingConfig

CONFIG = AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((16,)), beta=1.0)
LINEAR = CodecConfig("tests.extension.codec:Linear")
MODALITIES = tuple(Modality(name, (4,), 2, LINEAR) for name in ("a", "b", "c"))
SPLIT = Split({name: np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32) for name in "abc"}, None)
DATASET = Dataset(SPLIT, SPLIT, SPLIT, None, {})


def _changed(index, **changes):
    """Return the modalities, of which one has other settings of its codec."""
    codec = dataclasses.replace(LINEAR, **changes)
    return tuple(dataclasses.replace(m, codec=codec) if i == index else m for i, m in enumerate(MODALITIES))


def _stages(modalities, config=CONFIG, **options):
    return LatentSpace(modalities, config, **options).stages(DATASET)


# MARK: Stages


def test_codecs_of_equal_settings_are_trained_together():
    names = [stage.name for stage in _stages(MODALITIES)]
    assert names == ["autoencoders_vae", "latents_vae"]
    own = _stages(_changed(0, beta=0.3, training={"num_steps": 7, "optimizer": {"learning_rate": 0.5}}))
    assert [stage.name for stage in own] == ["autoencoder_vae_a", "autoencoders_vae_b_and_1_more", "latents_vae"]
    assert own[-1].requires == ("autoencoder_vae_a", "autoencoders_vae_b_and_1_more")
    assert own[0].training.num_steps == 7
    assert own[0].training.optimizer.learning_rate == 0.5
    assert own[0].training.batch_size == own[1].training.batch_size == 4
    aligned = dataclasses.replace(CONFIG, alignment=1.0, aligned_size=2)
    names = [stage.name for stage in _stages(_changed(0, beta=0.3), aligned)]
    assert names == ["aligned_autoencoders_vae", "latents_vae"]


def test_settings_of_one_codec_are_no_others_business():
    one, other = (fingerprints(_stages(_changed(0, beta=beta))) for beta in (0.3, 0.4))
    assert one["autoencoder_vae_a"] != other["autoencoder_vae_a"]
    assert one["autoencoders_vae_b_and_1_more"] == other["autoencoders_vae_b_and_1_more"]
    assert one["latents_vae"] != other["latents_vae"]


def test_the_bank_is_of_modalities_in_their_order_and_of_their_tokens():
    def bank(modalities):
        return fingerprints(_stages(modalities))

    first, second, third = _changed(1, beta=0.3)
    one, other = bank((first, second, third)), bank((first, third, second))
    assert {name for name in one if one[name] == other[name]} == {"autoencoder_vae_b", "autoencoders_vae_a_and_1_more"}
    cut = bank((first, dataclasses.replace(second, num_tokens=2), third))
    assert cut["autoencoder_vae_b"] == one["autoencoder_vae_b"]
    assert cut["latents_vae"] != one["latents_vae"]


def test_equal_settings_are_equal_however_they_are_written():
    assert CodecConfig("mlp", {"widths": [8]}) == CodecConfig("mlp", {"widths": (8,)})


def test_aligned_codecs_are_trained_alike():
    aligned = dataclasses.replace(CONFIG, alignment=1.0, aligned_size=2)
    with pytest.raises(SbmError, match=r"modality 'b' .* aligned codecs are trained together"):
        _stages(_changed(1, training={"num_steps": 3}), aligned)


def test_weights_of_losses_and_divergences_are_each_modalitys_own():
    aligned = dataclasses.replace(CONFIG, alignment=1e-30, aligned_size=2)  # one stage of unequal codecs
    (training,) = LatentSpace(_changed(0, beta=0.25, weight=3.0), aligned).trainings
    params = training.codecs.init(jax.random.key(0))
    loss, metrics = training.loss(params, {}, jax.random.key(1), {"data": SPLIT.data})
    expected = 3.0 * (metrics["reconstruction/a"] + 0.25 * metrics["regulariser/a"])
    for name in "bc":
        expected += metrics[f"reconstruction/{name}"] + metrics[f"regulariser/{name}"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
def test_equal_codecs_draw_noise_of_their_own(batched):
    """Equal parameters and equal data, of which each modality has other latents, and other samples."""
    training = CodecTraining("x", MODALITIES, CONFIG, 0, False, batched)
    params = training.codecs.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), params)
    posteriors, latents, outputs = training.autoencode(params, jax.random.key(1), dict.fromkeys("abc", SPLIT.data["a"]))
    np.testing.assert_allclose(posteriors["a"][0], posteriors["b"][0], rtol=1e-5)
    assert np.abs(latents["a"] - latents["b"]).min() > 1e-4
    same = training.codecs.sample(params, jax.random.key(2), dict.fromkeys("abc", outputs["a"]))
    assert np.abs(same["a"] - same["b"]).min() > 1e-5


# MARK: Objective


def test_the_bound_of_an_exact_posterior_is_the_likelihood():
    """Orthogonal columns make the posterior of a linear-Gaussian model diagonal, and the bound tight."""
    rng, noise = np.random.default_rng(0), 0.5
    weights = np.linalg.qr(rng.normal(size=(4, 2)))[0].T * np.array([[1.5], [0.7]])
    precision = 1 + (weights**2).sum(axis=1) / noise**2
    x = (rng.normal(size=(8, 2)) @ weights + noise * rng.normal(size=(8, 4))).astype(np.float32)
    params = {
        "encoder": {
            "weights": weights.T / noise**2 / precision,
            "bias": np.zeros(2),
            "log_variance": -np.log(precision),
        },
        "decoder": {"weights": weights, "bias": np.zeros(4)},
    }
    training = LatentSpace(MODALITIES[:1], CONFIG).trainings[0]
    params = {"a": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32)[None], params)}
    losses = jax.vmap(lambda key: training.loss(params, {}, key, {"data": {"a": x}})[0])
    losses = np.asarray(losses(jax.random.split(jax.random.key(0), 1000)))
    covariance = weights.T @ weights + noise**2 * np.eye(4)
    distance = np.einsum("bi,ij,bj->b", x, np.linalg.inv(covariance), x)
    exact = 0.5 * (distance + np.linalg.slogdet(covariance)[1] + 4 * np.log(2 * np.pi)).mean()
    np.testing.assert_allclose(losses.mean(), exact, atol=5 * losses.std() / 1000**0.5)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_a_learned_scale_is_that_of_what_is_left(likelihood):
    """It is found over the rows that have the modality, from ten times the residual, in a few hundred steps."""
    rng, modality = np.random.default_rng(0), Modality("x", (6,), 2, "mlp", likelihood)
    noise = rng.normal if likelihood == "gaussian" else rng.laplace
    x = rng.normal(size=(256, 2)) @ rng.normal(size=(2, 6)) + noise(size=(256, 6)) * 0.07
    present = np.arange(256)[:, None] % 4 > 0
    batch = {"data": {"x": np.where(present, x, 99.0).astype(np.float32)}, "present": present}
    training = LatentSpace((modality,), dataclasses.replace(CONFIG, beta=0.1)).trainings[0]
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))

    @jax.jit
    def train(params):
        def step(state, key):
            params, moments = state
            gradient = jax.grad(lambda p: training.loss(p, {}, key, batch)[0])(params)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 600))
        return params, training.autoencode(params, jax.random.key(2), batch["data"])[2]["x"]

    params, output = train(training.codecs.init(jax.random.key(0)))
    left = np.abs(np.asarray(output) - x)[present[:, 0]]
    expected = np.sqrt(np.mean(left**2)) if likelihood == "gaussian" else left.mean()
    scale = make_codec(modality, CONFIG.network).scale({"scale": params["x"]["scale"][0]})
    np.testing.assert_allclose(scale, expected, rtol=0.1)
    assert expected < 0.2


def test_the_gradient_of_a_scale_is_that_of_a_mean_over_entries():
    """So that it does not outweigh all others where gradients are clipped."""
    modality, network = Modality("x", (50,), 2, "mlp"), CONFIG.network
    codec = make_codec(modality, network)
    x, output = jnp.ones((3, 50)), jnp.zeros((3, 50))

    def loss(parameter):
        return codec.loss({"scale": parameter}, jax.random.key(0), x, output).mean()

    scale = float(codec.scale({"scale": jnp.float32(0.1)}))
    slope = (np.exp(1.0) / scale) * 10 * (1 - 1 / scale**2)  # of -log p of one entry
    np.testing.assert_allclose(jax.grad(loss)(jnp.float32(0.1)), slope, rtol=1e-4)


# MARK: Files


def test_a_codec_may_come_from_a_file(tmp_path):
    trained = make_codec(MODALITIES[1], CONFIG.network).init(jax.random.key(5))
    path = str(tmp_path / "b.npz")
    files.save(path, trained)
    stages = _stages(_changed(1, weights=path))
    assert [stage.name for stage in stages] == ["autoencoders_vae_a_and_1_more", "autoencoder_vae_b", "latents_vae"]
    loaded = stages[1]
    assert loaded.training is None
    jax.tree.map(np.testing.assert_array_equal, loaded.init(jax.random.key(0), {})["b"], _stacked(trained))
    moved = str(tmp_path / "moved.npz")
    files.save(moved, trained)
    other = str(tmp_path / "other.npz")
    files.save(other, jax.tree.map(lambda leaf: leaf + 1, trained))
    found = [fingerprints(_stages(_changed(1, weights=file))) for file in (path, moved, other)]
    first, second, third = (one["autoencoder_vae_b"] for one in found)
    assert first == second != third


def _stacked(params):
    return jax.tree.map(lambda leaf: leaf[None], params)


def test_files_of_other_codecs_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    files.save(
        path, make_codec(dataclasses.replace(MODALITIES[0], latent_size=3), CONFIG.network).init(jax.random.key(0))
    )
    space = LatentSpace(_changed(0, weights=str(path)), CONFIG)
    with pytest.raises(SbmError, match=r"modality 'a'.*decoder/weights is \[3, 4\], expected \[2, 4\]"):
        space.check()
    path.write_bytes(b"no archive")
    with pytest.raises(SbmError, match="contains no parameters"):
        space.check()
    path.unlink()
    with pytest.raises(SbmError, match="cannot be read"):
        space.check()


def test_regularised_codecs_have_weights_and_noise_of_their_own():
    """Two modalities that differ in these alone: the noise moves the latents of one, and each has its weight."""
    modalities = _changed(0, rae_beta=0.5, rae_noise=0.0)[:2]
    [own, other] = LatentSpace(modalities, dataclasses.replace(CONFIG, rae_beta=0.25), regularised=True).trainings
    assert (own.beta(modalities[0]), other.beta(modalities[1])) == (0.5, 0.25)
    for training, modality, moved in ((own, modalities[0], False), (other, modalities[1], True)):
        data = {modality.name: jnp.ones((2, *modality.shape))}
        params = training.codecs.init(jax.random.key(0))
        posteriors, latents, _ = training.autoencode(params, jax.random.key(1), data)
        assert np.allclose(latents[modality.name], posteriors[modality.name][0]) is not moved
