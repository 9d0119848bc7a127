import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig, Autoencoders
from sbm_jax.types import Modality

MODALITIES = (
    Modality("a", (12, 12, 3), 4, "patch"),
    Modality("words", (7,), 3, "mlp", "categorical"),
    Modality("b", (12, 12, 3), 4, "patch"),
    Modality("c", (12, 12, 3), 4, "residual_conv", "laplace"),
)
DATA = {m.name: jax.random.uniform(jax.random.key(i), (2, *m.shape)) for i, m in enumerate(MODALITIES)}


@pytest.fixture(scope="module")
def autoencoders():
    return Autoencoders(MODALITIES, AutoencoderNetworkConfig((8, 8)), batched=False)


@pytest.fixture(scope="module")
def params(autoencoders):
    return jax.jit(autoencoders.init)(jax.random.key(0))


def test_equal_modalities_share_a_stack_and_start_differently(autoencoders, params):
    assert [[m.name for m in group] for group in autoencoders.per_modality.groups.values()] == [
        ["a", "b"],
        ["words"],
        ["c"],
    ]
    kernels = next(iter(params.values()))["encoder"]["Dense_0"]["kernel"]
    assert kernels.shape[0] == 2
    assert not np.allclose(kernels[0], kernels[1])


def test_shapes(autoencoders, params):
    posteriors = autoencoders.encode(params, DATA)
    outputs = autoencoders.decode(params, {name: mean for name, (mean, _) in posteriors.items()})
    assert list(posteriors) == [m.name for m in MODALITIES]
    for modality in MODALITIES:
        mean, log_variance = posteriors[modality.name]
        assert mean.shape == log_variance.shape == (2, modality.latent_size)
        assert outputs[modality.name].shape == (2, *modality.shape)


@pytest.mark.parametrize("names", [["a", "words", "b", "c"], ["b"]])
def test_batched_equals_unrolled(autoencoders, params, names):
    batched = dataclasses.replace(autoencoders, batched=True)
    data = {name: DATA[name] for name in names}
    one, other = jax.jit(autoencoders.encode)(params, data), jax.jit(batched.encode)(params, data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_means_of_discrete_likelihoods_are_probabilities(autoencoders, params):
    means = autoencoders.decode_mean(params, {"words": jnp.ones((2, 3))})["words"]
    np.testing.assert_allclose(means.sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "patchh"}, "kind of modality 'a'.*Did you mean 'patch'"),
        ({"likelihood": "gauss"}, "likelihood of modality 'a'"),
        ({"shape": (12,)}, "needs the shape"),
    ],
)
def test_bad_modalities_are_refused(change, message):
    bad = dataclasses.replace(MODALITIES[0], **change)
    with pytest.raises(SbmError, match=message):
        Autoencoders((bad,), AutoencoderNetworkConfig((8, 8)), batched=False)
