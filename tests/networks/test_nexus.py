import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, check_codec, make_codec
from sbm_jax.types import Modality

IMAGE = Modality("image", (28, 28, 1), 64, "nexus_image", bounds=(0.0, 1.0))
SOUND = Modality("sound", (32, 128, 1), 64, "nexus_sound", bounds=(0.0, 1.0))
HEADS = 2 * 64  # rows of the two matrices that give mean and log variance


def codec(modality, **options):
    changed = {"name": modality.codec.name, "network": options}
    values = {
        name: getattr(modality, name) for name in ("name", "shape", "latent_size", "likelihood", "scale", "bounds")
    }
    return make_codec(Modality(**values, codec=changed) if options else modality, AutoencoderNetworkConfig())


def sizes(params):
    return {part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("encoder", "decoder")}


def test_networks_have_the_authors_numbers_of_parameters():
    image = sizes(jax.eval_shape(codec(IMAGE).init, jax.random.key(0)))
    dense = 3136 * 128 + 128 + 128 * 128 + 128
    assert image["encoder"] == 16 * 32 + 16 * 32 * 64 + dense + HEADS * 129
    assert image["decoder"] == (64 * 128 + 128) + (128 * 128 + 128) + (128 * 3136 + 3136) + 16 * 64 * 32 + 16 * 32
    sound = sizes(jax.eval_shape(codec(SOUND).init, jax.random.key(0)))
    convolutions = 128 * 128 + 4 * 128 * 128 + 4 * 128 * 256
    assert sound["encoder"] == convolutions + 2 * (128 + 128 + 256) + HEADS * 2049
    assert sound["decoder"] == 64 * 2048 + 2048 + 2 * 2048 + convolutions + 2 * (128 + 128)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli"])
@pytest.mark.parametrize(
    ("modality", "options"),
    [
        (Modality("image", (12, 8, 3), 4, "nexus_image"), {"channels": (4, 8), "hidden": 8}),
        (Modality("sound", (8, 6, 1), 4, "nexus_sound"), {"channels": (4, 4, 8)}),
    ],
)
def test_data_of_other_sizes_are_encoded_and_decoded(modality, options, likelihood):
    modality = Modality(modality.name, modality.shape, 4, modality.codec, likelihood)
    made = codec(modality, **options)
    check_codec(made)
    params = made.init(jax.random.key(0))
    z = 20.0 * jax.random.normal(jax.random.key(1), (3, 4))
    output = made.decode(params, z)
    x = made.sample(params, jax.random.key(2), output)
    assert x.shape == (3, *modality.shape)
    assert (x >= 0).all()
    assert (x <= 1).all()
    assert bool((output < 0).any()) == (likelihood == "bernoulli")  # the likelihood itself maps logits to (0, 1)
    mean, _ = made.encode(params, x)
    assert not np.allclose(mean[0], mean[1])


def test_halving_is_that_of_the_authors():
    """Of convolutions 4x4 with stride 2 and one pixel of padding: the first output sees pixels -1 to 2."""
    made = codec(Modality("sound", (8, 6, 1), 4, "nexus_sound"), channels=(4, 4, 8))
    params = made.init(jax.random.key(0))["encoder"]

    def first(x):
        conv = jax.lax.conv_general_dilated(
            *(x, params["Conv_1"]["kernel"], (2, 1), [(1, 1), (0, 0)]), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return conv[0, 0, 0].sum()

    seen = jnp.abs(jax.grad(first)(jnp.ones((1, 8, 1, 4)))).sum(axis=(0, 2, 3)) > 0
    np.testing.assert_array_equal(seen, np.arange(8) < 3)


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        (Modality("image", (30, 28, 1), 4, "nexus_image"), {}, r"has the sides \(30, 28\); expected multiples of 4"),
        (Modality("sound", (30, 128, 1), 4, "nexus_sound"), {}, r"has the sides \(30,\); expected multiples of 4"),
        (Modality("image", (28, 28, 1), 4, "nexus_image", bounds=(-1.0, 1.0)), {}, r"bounds \(-1\.0, 1\.0\)"),
        (Modality("image", (784,), 4, "nexus_image"), {}, r"needs the shape \(height, width, channels\)"),
        (IMAGE, {"channels": (32,)}, r"codec\.network\.channels is \(32,\); expected two positive sizes"),
        (IMAGE, {"hidden": 0}, r"codec\.network\.hidden is 0"),
        (SOUND, {"channels": (8, 8)}, "expected three positive sizes"),
        (SOUND, {"widths": (8, 8)}, "unknown field of modality 'sound': codec.network"),
    ],
)
def test_what_does_not_fit_is_refused(modality, options, message):
    with pytest.raises(SbmError, match=message):
        codec(modality, **options)
