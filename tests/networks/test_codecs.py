import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import CODECS, AutoencoderNetworkConfig, Codecs, check_codec, make_codec
from sbm_jax.networks.codecs.mlp import MLP
from sbm_jax.types import Modality

MODALITIES = (
    Modality("a", (12, 12, 3), 4, "patch"),
    Modality("words", (7,), 3, "mlp", "categorical"),
    Modality("b", (12, 12, 3), 4, "patch"),
    Modality("c", (12, 12, 3), 4, "residual_conv", "laplace"),
)
DATA = {m.name: jax.random.uniform(jax.random.key(i), (2, *m.shape)) for i, m in enumerate(MODALITIES)}


@pytest.fixture(scope="module")
def codecs():
    return Codecs(MODALITIES, AutoencoderNetworkConfig((8, 8)), batched=False)


@pytest.fixture(scope="module")
def params(codecs):
    return jax.jit(codecs.init)(jax.random.key(0))


def test_equal_modalities_share_a_stack_and_start_differently(codecs, params):
    assert [[m.name for m in group] for group in codecs.per_modality.groups.values()] == [
        ["a", "b"],
        ["words"],
        ["c"],
    ]
    kernels = next(iter(params.values()))["encoder"]["Dense_0"]["kernel"]
    assert kernels.shape[0] == 2
    assert not np.allclose(kernels[0], kernels[1])


class Broken(MLP):
    """A codec of whose functions one returns what it should not."""

    wrong = ""

    def encode(self, params, x):
        mean, log_variance = super().encode(params, x)
        return (mean[:, 1:], log_variance) if self.wrong == "encode" else (mean, log_variance)

    def loss(self, params, key, x, output):
        losses = super().loss(params, key, x, output)
        return losses.mean() if self.wrong == "loss" else losses

    def sample(self, params, key, output):
        return output[:, :-1] if self.wrong == "sample" else 100.0 * jnp.ones_like(output)


@pytest.mark.parametrize("function", ["encode", "loss", "sample"])
def test_what_a_codec_returns_is_checked_before_it_is_trained(function, monkeypatch):
    modality = Modality("words", (7,), 3)
    codec = Broken(modality, AutoencoderNetworkConfig((8,)))
    check_codec(codec)
    monkeypatch.setattr(Broken, "wrong", function)
    with pytest.raises(SbmError, match=rf"of modality 'words': {function} returns arrays of "):
        check_codec(codec)


def test_samples_of_any_codec_are_inside_the_bounds():
    modality = Modality("words", (7,), 3, "tests.networks.test_codecs:Broken", bounds=(-0.5, 0.5))
    one = Codecs((modality,), AutoencoderNetworkConfig((8,)), batched=False)
    made = one.generate(one.init(jax.random.key(0)), jax.random.key(1), {"words": jnp.zeros((2, 3))})
    np.testing.assert_array_equal(made["words"], 0.5)


def test_shapes(codecs, params):
    posteriors = codecs.encode(params, DATA)
    outputs = codecs.decode(params, {name: mean for name, (mean, _) in posteriors.items()})
    assert list(posteriors) == [m.name for m in MODALITIES]
    for modality in MODALITIES:
        mean, log_variance = posteriors[modality.name]
        assert mean.shape == log_variance.shape == (2, modality.latent_size)
        assert outputs[modality.name].shape == (2, *modality.shape)


@pytest.mark.parametrize("names", [["a", "words", "b", "c"], ["b"]])
def test_batched_equals_unrolled(codecs, params, names):
    batched = dataclasses.replace(codecs, batched=True)
    data = {name: DATA[name] for name in names}
    one, other = jax.jit(codecs.encode)(params, data), jax.jit(batched.encode)(params, data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_means_of_discrete_likelihoods_are_probabilities(codecs, params):
    means = codecs.generate(params, jax.random.key(0), {"words": jnp.ones((2, 3))})["words"]
    np.testing.assert_allclose(means.sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "patchh"}, "codec of modality 'a'.*Did you mean 'patch'"),
        ({"codec": {"name": "patch", "network": {"width": (8,)}}}, "field of modality 'a': codec.network"),
        ({"codec": {"name": "patch", "network": {"widths": (8, 4)}}}, "needs equal widths"),
        ({"likelihood": "gauss"}, "likelihood of modality 'a'"),
        ({"shape": (12,)}, "needs the shape"),
    ],
)
def test_bad_modalities_are_refused(change, message):
    bad = dataclasses.replace(MODALITIES[0], **change)
    with pytest.raises(SbmError, match=message):
        Codecs((bad,), AutoencoderNetworkConfig((8, 8)), batched=False)


NOT_OF_PIXELS = ("tokens", "optimus", "autoencoder_kl")
"""Codecs of ids, and one whose latent has a size of its own and whose operands are float32."""


@pytest.mark.parametrize("name", [name for name in CODECS if name not in NOT_OF_PIXELS])
def test_bfloat16_decoders_tell_neighbouring_grey_levels_apart(name):
    """Near 1 bfloat16 has steps of 1/256 = 0.0039, as coarse as 8-bit images: last layers are float32."""
    shape = {"mlp": (6,), "video": (4, 8, 8, 1)}.get(name, (8, 8, 1))
    codec = make_codec(Modality("image", shape, 4, name), AutoencoderNetworkConfig((8,), dtype="bfloat16"))
    z = jax.random.normal(jax.random.key(1), (64, 4))
    output = np.asarray(codec.decode(codec.init(jax.random.key(0)), z), np.float32)
    assert np.mean(output == output.astype(jnp.bfloat16).astype(np.float32)) < 0.1


@pytest.mark.parametrize("name", ["a/b", "", "label", "photo.present", " ", "a\nb", "../a"])
def test_names_that_are_no_part_of_a_path_or_metric_are_refused(name):
    with pytest.raises(SbmError, match="modality: name"):
        Modality(name, (3,), 2)


FACES = {"smooth": True, "stem": 64}
NETWORK = AutoencoderNetworkConfig((8, 8))


@pytest.mark.parametrize(
    ("shape", "network", "millions"),
    [
        ((128, 128, 3), {**FACES, "widths": (128, 256, 512)}, 62.51),
        ((128, 128, 1), {**FACES, "widths": (128, 256), "factors": (4, 4)}, 9.24),
    ],
)
def test_the_papers_networks_for_faces(shape, network, millions):
    """Their maps are 8x8x512 and 4x4x256 where they are narrowest, and 16x16 and 8x8 where decoding begins.

    The authors' have 51.8 and 7.6 million parameters: each of their heads sees one half of the channels of the last
    map, and their decoders' blocks narrow inside.
    """
    modality = Modality("face", shape, 256, {"name": "residual_conv", "network": network})
    codec = make_codec(modality, AutoencoderNetworkConfig())
    params = jax.eval_shape(codec.init, jax.random.key(0))
    side = {3: 8, 1: 2 * 2}[shape[-1]]
    assert params["encoder"]["Heads_0"]["Dense_0"]["kernel"].shape == (side * side * network["widths"][-1], 256)
    start = {3: 16, 1: 8}[shape[-1]]
    assert params["decoder"]["Dense_0"]["kernel"].shape == (256, start * start * network["widths"][-1])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=0.01)
    check_codec(codec)


def test_maps_are_reduced_by_the_factors():
    """A side that they do not divide is padded, and cropped again."""
    network = {"widths": (8, 16), "factors": (4, 1), "smooth": True}
    codec = make_codec(Modality("a", (12, 9, 2), 3, {"name": "residual_conv", "network": network}), NETWORK)
    params = codec.init(jax.random.key(0))
    assert params["encoder"]["Heads_0"]["Dense_0"]["kernel"].shape == (2 * 2 * 16, 3)
    decoded = codec.decode(params, jnp.ones((2, 3)))
    assert decoded.shape == (2, 12, 9, 2)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"factors": (2,)}, r"factors is \(2,\); expected one for each of 2 widths"),
        ({"factors": (2, 3)}, r"factors is \(2, 3\); expected powers of two"),
        ({"stem": -1}, r"stem is -1; expected 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(network, message):
    with pytest.raises(SbmError, match=message):
        make_codec(Modality("a", (8, 8, 1), 3, {"name": "residual_conv", "network": network}), NETWORK)
