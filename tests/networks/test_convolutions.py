"""The matrix forms of a convolution are the convolution, whatever its shape."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sbm_jax.errors import SbmError
from sbm_jax.networks import convolutions
from sbm_jax.networks.convolutions import Conv, Window

BATCH, IN, OUT = 3, 5, 7
DOWN, UP = Window(4, stride=2), Window(4, dilation=2)


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def assert_close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "window", "depthwise", "form"),
    [
        (1, 1, Window(3), False, convolutions.convolve_dense),
        (2, 2, Window(3), False, convolutions.convolve_dense),
        (1, 2, Window(3), False, convolutions.convolve_dense),
        (2, 2, DOWN, False, convolutions.convolve_dense),
        (1, 1, UP, False, convolutions.convolve_dense),
        (2, 2, UP, False, convolutions.convolve_dense),
        (4, 4, DOWN, False, convolutions.convolve_dense),
        (4, 4, Window(3), False, convolutions.convolve_winograd),
        (8, 4, Window(3), False, convolutions.convolve_winograd),
        (4, 4, Window(1), False, convolutions.convolve_pointwise),
        (1, 1, Window(7), True, convolutions.convolve_per_channel),
        (4, 2, Window(7), True, convolutions.convolve_per_channel),
        (8, 8, Window(7), True, convolutions.convolve_per_channel),
        (4, 4, DOWN, True, convolutions.convolve_per_channel),
        (9, 8, Window(3), True, convolutions.convolve_shifted),
    ],
)
def test_matrix_forms_equal_the_convolution_in_value_and_gradient(height, width, window, depthwise, form):
    assert convolutions.select_form("matmul", window, (height, width), depthwise, "tpu") is form
    x = normal(BATCH, height, width, IN)
    kernel = normal(window.kernel_size, window.kernel_size, *((1, IN) if depthwise else (IN, OUT)))
    shape = jax.eval_shape(lambda x, kernel: convolutions.convolve(x, kernel, window), x, kernel).shape
    cotangent = normal(*shape)

    def value_and_gradient(form):
        y, pullback = jax.vjp(lambda x, kernel: form(x, kernel, window), x, kernel)
        return y, pullback(cotangent)

    expected, actual = jax.jit(lambda: (value_and_gradient(convolutions.convolve), value_and_gradient(form)))()
    jax.tree.map(assert_close, actual, expected)


@pytest.mark.parametrize(
    ("size", "window", "depthwise"),
    [(3, Window(3), False), (8, Window(7), False), (8, DOWN, False), (4, UP, False), (16, DOWN, True)],
)
def test_maps_as_large_as_the_kernel_stay_convolutions(size, window, depthwise):
    form = convolutions.select_form("matmul", window, (size, size), depthwise, "cpu")
    assert form is convolutions.convolve


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (7, 1), (4, 2), (3, 2), (2, 3)])
def test_window_pads_as_same(size, kernel_size, stride):
    expected = lax.padtype_to_pads((size,), (kernel_size,), (stride,), "SAME")
    assert [Window(kernel_size, stride).padding(size)] == expected


@pytest.mark.parametrize(("size", "kernel_size", "dilation"), [(1, 4, 2), (2, 4, 2), (3, 3, 2), (2, 5, 3), (2, 2, 3)])
def test_dilated_window_is_the_transposed_convolution(size, kernel_size, dilation):
    x, kernel = normal(BATCH, size, size, IN), normal(kernel_size, kernel_size, IN, OUT)
    expected = lax.conv_transpose(x, kernel, (dilation, dilation), "SAME")
    assert_close(convolutions.convolve(x, kernel, Window(kernel_size, dilation=dilation)), expected)


def test_parameters_do_not_depend_on_the_mode():
    x = normal(BATCH, 2, 2, IN)
    shapes = {"params": {"kernel": (3, 3, IN, OUT), "bias": (OUT,)}}
    convs = [Conv(OUT, Window(3), mode=mode) for mode in convolutions.MODES]
    for conv in convs:
        variables = jax.eval_shape(conv.init, jax.random.key(0), x)
        assert jax.tree.map(lambda leaf: leaf.shape, variables) == shapes
    params = {"params": {"kernel": normal(3, 3, IN, OUT), "bias": normal(OUT)}}
    expected, *others = (conv.apply(params, x) for conv in convs)
    for actual in others:
        assert_close(actual, expected)


def test_auto_takes_matrix_forms_on_cpu_only():
    def chosen(backend):
        return convolutions.select_form("auto", Window(3), (2, 2), False, backend)

    assert chosen("cpu") is convolutions.convolve_dense
    assert chosen("gpu") is convolutions.convolve
    assert convolutions.select_form("conv", Window(3), (2, 2), False, "cpu") is convolutions.convolve


def test_tiles_are_transformed_in_float32_only():
    def chosen(exact):
        return convolutions.select_form("matmul", Window(3), (8, 8), False, "cpu", exact)

    assert chosen(True) is convolutions.convolve_winograd
    assert chosen(False) is convolutions.convolve


def test_unknown_mode_is_an_error_that_lists_the_known_ones():
    with pytest.raises(SbmError, match=r"unknown conv_mode 'matmull'.*'matmul'.*auto, conv, matmul"):
        convolutions.select_form("matmull", Window(3), (2, 2), False, "cpu")


def test_low_precision_operands_are_summed_in_float32():
    # 1 + 256 · 2⁻⁸ = 2; summed one by one in bfloat16 every 2⁻⁸ is lost to rounding and the result is 1.
    x = jnp.full((1, 1, 1, 257), 2.0**-8).at[..., 0].set(1.0)
    conv = Conv(1, Window(3), mode="matmul", use_bias=False, dtype=jnp.bfloat16)
    y = conv.apply({"params": {"kernel": jnp.ones((3, 3, 257, 1))}}, x)
    assert y.dtype == jnp.bfloat16
    assert y.item() == 2.0


def test_initial_parameters_have_the_range_of_pytorch():
    params = jax.jit(Conv(64, Window(3)).init)(jax.random.key(0), normal(1, 4, 4, 16))["params"]
    bound = (16 * 9) ** -0.5
    for values in (params["kernel"], params["bias"]):
        assert 0.9 * bound < jnp.abs(values).max() <= bound
        assert abs(values.mean()) < 0.2 * bound


@pytest.mark.parametrize(("side", "left_outside"), [(2, ("[3,3,4,4]", " transpose(")), (4, ("[3,3,4,4]",))])
def test_operators_are_built_once_before_a_scan(side, left_outside):
    conv = Conv(4, Window(3), mode="matmul")
    x = normal(2, side, side, 4)
    params = {"params": {"kernel": normal(3, 3, 4, 4), "bias": normal(4)}}

    @jax.jit
    def sample(params, x):
        return lax.scan(lambda x, _: (jnp.tanh(conv.apply(params, x)), None), x, length=5)[0]

    text = sample.lower(params, x).compile().as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?(%[\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    body = re.search(r"body=(%[\w.-]+)", text).group(1)

    def reachable(name):
        called = re.findall(r"(?:calls|to_apply|body)=(%[\w.-]+)", computations[name])
        return {name}.union(*map(reachable, called))

    inside = "".join(computations[name] for name in reachable(body))
    for part in left_outside:
        assert part in text
        assert part not in inside
