import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import CODECS, AutoencoderNetworkConfig, Codecs, make_codec
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


@pytest.mark.parametrize("name", CODECS)
def test_bfloat16_decoders_tell_neighbouring_grey_levels_apart(name):
    """Near 1 bfloat16 has steps of 1/256 = 0.0039, as coarse as 8-bit images: last layers are float32."""
    shape = (6,) if name == "mlp" else (8, 8, 1)
    codec = make_codec(Modality("image", shape, 4, name), AutoencoderNetworkConfig((8,), dtype="bfloat16"))
    z = jax.random.normal(jax.random.key(1), (64, 4))
    output = np.asarray(codec.decode(codec.init(jax.random.key(0)), z), np.float32)
    assert np.mean(output == output.astype(jnp.bfloat16).astype(np.float32)) < 0.1


def test_expected_data_are_inside_their_bounds():
    modality = Modality("image", (8, 8, 1), 4, "patch", bounds=(-0.1, 0.2))
    codec = make_codec(modality, AutoencoderNetworkConfig((8,)))
    raw = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    expected = codec.sample({}, jax.random.key(1), raw)
    np.testing.assert_array_equal(expected, np.clip(raw, -0.1, 0.2))


@pytest.mark.parametrize("name", ["a/b", "", "label", "photo.present", " ", "a\nb", "../a"])
def test_names_that_are_no_part_of_a_path_or_metric_are_refused(name):
    with pytest.raises(SbmError, match="modality: name"):
        Modality(name, (3,), 2)
