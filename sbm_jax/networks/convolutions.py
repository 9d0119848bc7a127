"""Convolutions that stay fast on the small maps of a score network over latents.

XLA:CPU's convolution is very slow on maps smaller than the kernel and for depthwise kernels: 3x3 on a 2x2 map takes a
hundred times as long as an equivalent matrix product. Such a layer is a linear operator on the flattened map, whose
entries are taps of the kernel, so it equals a matrix product with that operator. On larger maps, a 3x3 convolution
takes half the time as matrix products over transformed tiles. `python -m benchmarks.sampler_throughput` measures the
gain for the paper's UNet.

The operators depend only on the kernels. In a `lax.scan` whose body closes over the parameters, XLA hoists their
construction out of the loop, so that it runs once per sampling call; a test verifies this.

Letters: B rows, h x w the input map, h' x w' the output map, C and C' channels in and out, k the side of the kernel.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from sbm_jax.errors import unknown
from sbm_jax.types import Array, Key

MODES = ("auto", "conv", "matmul")

# With more positions, a depthwise operator is slower than a sum of shifted maps (measured at 8x8 and 16x16).
_LARGEST_DEPTHWISE_OPERATOR = 64


@dataclasses.dataclass(frozen=True)
class Window:
    """The geometry of a square kernel on a map with ``"SAME"`` zero padding.

    Output position o reads input position i through tap κ where i·dilation = o·stride − padding + κ.

    Attributes:
      kernel_size: k, the side of the kernel.
      stride: divides the map's sides.
      dilation: spreads the input by zeros, which multiplies the map's sides: a transposed convolution with the kernel
        as in `lax.conv_transpose` (not flipped).
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1

    def output_size(self, size: int) -> int:
        """Return the length of the output along an axis of length `size`."""
        return -(-size * self.dilation // self.stride)

    def padding(self, size: int) -> tuple[int, int]:
        """Return the number of zeros before and after the (dilated) input along an axis of length `size`."""
        spread = (size - 1) * self.dilation + 1
        reach = (self.output_size(size) - 1) * self.stride + self.kernel_size
        total = max(reach - spread, 0)
        before = total // 2 if self.dilation == 1 else min((total + 1) // 2, self.kernel_size - 1)
        return before, total - before

    def axis_taps(self, size: int) -> np.ndarray:
        """Return the tap between input and output positions of an axis, int [size, output size]; -1 for none."""
        inputs = np.arange(size)[:, None] * self.dilation
        outputs = np.arange(self.output_size(size))[None] * self.stride
        tap = inputs - outputs + self.padding(size)[0]
        return np.where((tap >= 0) & (tap < self.kernel_size), tap, -1)

    def taps(self, height: int, width: int) -> np.ndarray:
        """Return the tap between input and output positions of a map, int [h·w, h'·w'], row-major; k² for none."""
        rows, columns = self.axis_taps(height), self.axis_taps(width)
        rows, columns = rows[:, None, :, None], columns[None, :, None, :]
        tap = np.where((rows >= 0) & (columns >= 0), rows * self.kernel_size + columns, self.kernel_size**2)
        return tap.reshape(height * width, -1)


# MARK: Algorithms for the same operation


def convolve(x: Array, kernel: Array, window: Window) -> Array:
    """Compute the convolution by XLA's own operation.

    Args:
      x: [B, h, w, C].
      kernel: [k, k, C, C'], or [k, k, 1, C] for a depthwise one.
      window: the geometry.

    Returns:
      [B, h', w', C'].
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(window.stride, window.stride),
        padding=[window.padding(x.shape[1]), window.padding(x.shape[2])],
        lhs_dilation=(window.dilation, window.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def convolve_pointwise(x: Array, kernel: Array, window: Window) -> Array:
    """Compute the convolution with a kernel [1, 1, C, C'] as one product over channels; see `convolve`."""
    del window
    return _dot("bhwc,cd->bhwd", x, kernel[0, 0])


def convolve_dense(x: Array, kernel: Array, window: Window) -> Array:
    """Compute the convolution as one product with the dense operator [h·w·C, h'·w'·C']; see `convolve`."""
    batch, height, width, channels = x.shape
    taps = _with_zero_tap(kernel).transpose(1, 0, 2)
    # Built in one piece per input position, because XLA would leave a transpose of the whole inside the loop.
    pieces = [taps[:, row] for row in window.taps(height, width)]
    operator = jnp.concatenate([piece.reshape(channels, -1) for piece in pieces])
    y = _dot("bi,io->bo", x.reshape(batch, -1), operator)
    return y.reshape(batch, window.output_size(height), window.output_size(width), -1)


def convolve_winograd(x: Array, kernel: Array, window: Window) -> Array:
    """Compute a 3x3 convolution on a map whose sides are multiples of 4 by Winograd's F(4x4, 3x3); see `convolve`.

    y = Aᵀ [(G g Gᵀ) ∘ (Bᵀ x B)] A for each 4x4 tile of the output: 36 products per pair of channels instead of 144.
    Summed over channels, these are 36 matrix products.

    Reference:
      Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. https://arxiv.org/abs/1509.09308
    """
    del window
    batch, height, width, channels = x.shape
    rows, columns = height // 4, width // 4
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tiles = jnp.stack([padded[:, 4 * i : 4 * i + 6, 4 * j : 4 * j + 6] for i, j in np.ndindex(rows, columns)])
    spectra = _on_maps(_INPUT, x) @ tiles.transpose(2, 3, 0, 1, 4).reshape(36, -1)
    operators = _on_maps(_KERNEL, kernel) @ kernel.reshape(9, -1)
    products = _dot("pbc,pcd->pbd", spectra.reshape(36, -1, channels), operators.reshape(36, channels, -1))
    y = _on_maps(_OUTPUT, x) @ products.reshape(36, -1)
    return y.reshape(4, 4, rows, columns, batch, -1).transpose(4, 2, 0, 3, 1, 5).reshape(batch, height, width, -1)


def _winograd_matrices(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Bᵀ [6, 6], G [6, 3] and Aᵀ [4, 6] of F(4, 3) for five points; the sixth is ∞.

    The algorithm is the transpose of multiplying polynomials by evaluation at the points and interpolation.
    """
    inputs, kernel, output = np.zeros((6, 6)), np.zeros((6, 3)), np.zeros((4, 6))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        inputs[i, :5] = np.poly(others)[::-1]
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        output[:, i] = point ** np.arange(4)
    inputs[5], kernel[5, 2], output[3, 5] = np.poly(points)[::-1], 1.0, 1.0
    return inputs, kernel, output


# The usual points 0, ±1, ±2 give four times the rounding errors; these points hardly more than a direct sum.
_INPUT, _KERNEL, _OUTPUT = _winograd_matrices((0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)))


def _on_maps(matrix: np.ndarray, like: Array) -> Array:
    """Return the matrix that applies `matrix` to both axes of a flattened map."""
    return jnp.asarray(np.kron(matrix, matrix), like.dtype)


def convolve_per_channel(x: Array, kernel: Array, window: Window) -> Array:
    """Compute a depthwise convolution as C products with operators [h·w, h'·w']; see `convolve`."""
    batch, height, width, channels = x.shape
    operators = _with_zero_tap(kernel)[:, 0, :].T[:, window.taps(height, width)]
    # Explicit transposes: XLA:CPU's own would cost more than the products.
    y = _dot("cbi,cio->cbo", x.reshape(batch, -1, channels).transpose(2, 0, 1), operators).transpose(1, 2, 0)
    return y.reshape(batch, window.output_size(height), window.output_size(width), channels)


def convolve_shifted(x: Array, kernel: Array, window: Window) -> Array:
    """Compute a depthwise convolution of stride 1 as a sum of k² shifted and scaled maps; see `convolve`."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), window.padding(height), window.padding(width), (0, 0)))
    shifts = np.ndindex(window.kernel_size, window.kernel_size)
    return sum(padded[:, i : i + height, j : j + width] * kernel[i, j][None, None] for i, j in shifts)


def _with_zero_tap(kernel: Array) -> Array:
    """Return the taps [k² + 1, ...] in row-major order, the last of them zero."""
    taps = kernel.reshape(-1, *kernel.shape[2:])
    return jnp.concatenate([taps, jnp.zeros_like(taps[:1])])


def _dot(subscripts: str, x: Array, operator: Array) -> Array:
    # Accumulates in float32 for any operand type.
    return jnp.einsum(subscripts, x, operator, preferred_element_type=jnp.float32).astype(x.dtype)


# MARK: Choosing an algorithm


def select_form(
    mode: str, window: Window, spatial: tuple[int, int], depthwise: bool, backend: str, exact: bool = True
) -> Callable[[Array, Array, Window], Array]:
    """Return the fastest algorithm for a convolution of this static shape.

    Args:
      mode: ``"conv"`` always selects XLA's operation; ``"matmul"`` selects the other algorithms where they are faster
        on a CPU; ``"auto"`` is ``"matmul"`` on a CPU and ``"conv"`` elsewhere.
      window: the geometry.
      spatial: (h, w) of the input map.
      depthwise: whether each channel is convolved separately.
      backend: name of the platform to run on.
      exact: whether operands are float32; tile transforms lose too much precision in shorter types.

    Returns:
      `(x, kernel, window) -> y`; all algorithms agree up to rounding.

    Raises:
      SbmError: on an unknown mode.
    """
    if mode not in MODES:
        raise unknown("conv_mode", mode, MODES)
    if mode == "conv" or (mode == "auto" and backend != "cpu"):
        return convolve
    if window == Window(1) and not depthwise:
        return convolve_pointwise
    if depthwise:
        if math.prod(spatial) <= _LARGEST_DEPTHWISE_OPERATOR:
            return convolve_per_channel
        return convolve_shifted if window.stride == window.dilation == 1 else convolve
    # With a stride, few taps fall on the padding, and the operator is small.
    if max(spatial) < window.kernel_size + (window.stride > 1):
        return convolve_dense
    tiled = spatial[0] % 4 == spatial[1] % 4 == 0
    return convolve_winograd if window == Window(3) and tiled and exact else convolve


# MARK: Modules


def uniform_init(fan_in: int) -> Callable[[Key, tuple[int, ...], DTypeLike], Array]:
    """Return the initialiser U(−1/√fan_in, 1/√fan_in), PyTorch's default for kernels and biases alike."""
    bound = fan_in**-0.5

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """A square two-dimensional convolution whose parameters do not depend on the algorithm.

    Parameters: `kernel` [k, k, C, C'] ([k, k, 1, C] depthwise) and `bias` [C'], float32. PyTorch's kernel of a
    transposed convolution is this one flipped along both spatial axes.

    Attributes:
      features: C'; a depthwise convolution has C' = C.
      window: the geometry; see `Window`.
      depthwise: whether to convolve each channel separately.
      use_bias: whether to add a bias.
      zero: whether to initialise the parameters with 0, so that a residual block starts as the identity.
      mode: see `select_form`.
      dtype: type of the operands and the result; sums are float32.
    """

    features: int
    window: Window
    depthwise: bool = False
    use_bias: bool = True
    zero: bool = False
    mode: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, h, w, C] to [B, h', w', C']."""
        size = self.window.kernel_size
        in_features = 1 if self.depthwise else x.shape[-1]
        init = nn.initializers.zeros if self.zero else uniform_init(in_features * size**2)
        kernel = self.param("kernel", init, (size, size, in_features, self.features))
        exact = jnp.dtype(self.dtype).itemsize >= 4
        form = select_form(self.mode, self.window, x.shape[1:3], self.depthwise, jax.default_backend(), exact)
        y = form(x.astype(self.dtype), kernel.astype(self.dtype), self.window)
        if self.use_bias:
            bias = self.param("bias", init, (self.features,))
            y = y + bias.astype(self.dtype)[None, None, None]
        return y
