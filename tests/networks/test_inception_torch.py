"""FID and KID of random images against the values that torchmetrics documents for them."""

import jax
import numpy as np
import pytest

from sbm_jax.evaluation import fidelity, frechet
from sbm_jax.networks.inception import InceptionV3, read_weights

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the images are those of PyTorch's generator; install '.[bench]'")


def draw_images(torch, seed, params):
    """The images of torchmetrics' doctests, which come after the initialisation of its Inception network."""
    torch.manual_seed(seed)
    for name in sorted(params):
        height, width, inputs, outputs = params[name]["kernel"].shape
        torch.nn.Conv2d(inputs, outputs, (height, width), bias=False)
    torch.nn.Linear(2048, 1008)
    drawn = (torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8) for low, high in ((0, 200), (100, 255)))
    return [images.numpy().transpose(0, 2, 3, 1).astype(np.float32) for images in drawn]


def features(params, images, num_features):
    extract = jax.jit(InceptionV3(num_features).apply)
    return np.concatenate([np.asarray(extract({"params": params}, images[i : i + 20])) for i in range(0, 100, 20)])


@pytest.mark.parametrize(("seed", "documented"), [(42, 12.6388), (123, 12.7202)])
def test_fid_of_64_features(torch, inception_weights, seed, documented):
    params = read_weights(inception_weights)
    real, generated = (features(params, images, 64) for images in draw_images(torch, seed, params))
    found = frechet.distance(generated, frechet.gaussian(frechet.moments(real)))
    assert found == pytest.approx(documented, abs=1e-4)


def test_kid_of_2048_features(torch, inception_weights):
    """The subsets are other ones, so that the mean agrees to within its own error."""
    params = read_weights(inception_weights)
    real, generated = (features(params, images, 2048) for images in draw_images(torch, 123, params))
    found = fidelity.kernel_distance(real, generated, subset_size=50)
    assert found.value == pytest.approx(0.0337, abs=0.001)
    assert found.std == pytest.approx(0.0023, rel=0.3)
