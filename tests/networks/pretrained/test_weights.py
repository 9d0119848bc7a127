"""Reading weights: what becomes of a tensor, and what is said of files that do not fit."""

import json
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.pretrained.bert import Bert, BertConfig, read_bert
from sbm_jax.networks.pretrained.weights import as_params, read_tensors
from tests.networks.pretrained.files import tensors_of

OPTION = "codec.network.weights"


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (2, 1), name="blocks.0.conv")(x)
        return (
            nn.LayerNorm(name="norm")(nn.Dense(4, name="out")(x))
            + self.param("shift", nn.initializers.zeros, (4,))[None, None, None]
        )


TENSORS = {
    "blocks.0.conv.weight": np.arange(12.0).reshape(3, 2, 2, 1),
    "blocks.0.conv.bias": np.ones(3),
    "out.weight": np.arange(12.0).reshape(4, 3),
    "out.bias": np.ones(4),
    "norm.weight": np.full(4, 2.0),
    "norm.bias": np.ones(4),
    "shift": np.arange(4.0),
}
INPUT = (np.zeros((1, 5, 5, 2), np.float32),)


def write(path, tensors) -> None:
    """Write a file by hand, as the format says: the length of a header, the header, the data."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        content = array.tobytes()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_every_parameter_has_its_tensor():
    params = as_params(Small(), INPUT, TENSORS, OPTION)
    np.testing.assert_array_equal(
        params["blocks.0.conv"]["kernel"][1, 0, 0, 2], TENSORS["blocks.0.conv.weight"][2, 0, 1, 0]
    )
    np.testing.assert_array_equal(params["out"]["kernel"], TENSORS["out.weight"].T)
    np.testing.assert_array_equal(params["norm"]["scale"], TENSORS["norm.weight"])
    np.testing.assert_array_equal(params["shift"], TENSORS["shift"])


def test_a_missing_tensor_is_named():
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != "out.weight"}
    with pytest.raises(SbmError, match=rf"{OPTION}: the file has no tensor 'out.weight' \(it has blocks.0.conv.weight"):
        as_params(Small(), INPUT, tensors, OPTION)


def test_a_tensor_of_another_shape_is_named():
    with pytest.raises(SbmError, match=r"tensor 'out.weight' has the shape \(5, 3\), .*expected \(3, 4\)"):
        as_params(Small(), INPUT, TENSORS | {"out.weight": np.zeros((5, 3))}, OPTION)
    with pytest.raises(SbmError, match=r"tensor 'out\.weight' has the shape"):
        as_params(Small(), INPUT, TENSORS | {"out.weight": np.zeros(3)}, OPTION)


def test_files_in_half_precision(tmp_path):
    values = np.array([[1.5, -2.0]], np.float32)
    bfloat16 = np.asarray(jnp.asarray(values, jnp.bfloat16))
    write(tmp_path / "a.safetensors", {"half": ("F16", values.astype(np.float16)), "brain": ("BF16", bfloat16)})
    tensors = read_tensors(tmp_path / "a.safetensors", OPTION)
    for tensor in tensors.values():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, values)


def test_damaged_files(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(SbmError, match=f"{OPTION}: no file"):
        read_tensors(path, OPTION)
    write(path, {"a": ("F32", np.ones(100, np.float32))})
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"", b"\x80\x02}q\x00." * 9):
        path.write_bytes(content)
        with pytest.raises(SbmError, match="not a complete safetensors file"):
            read_tensors(path, OPTION)


def test_a_network_of_another_size(tmp_path):
    with pytest.raises(SbmError, match=r"embeddings\.LayerNorm"):
        read_bert(BertConfig(width=12, heads=2), {"shift": np.zeros(3)}, OPTION)


def test_norms_of_the_oldest_files():
    config = BertConfig(8, 8, 1, 2, 8, 4)
    tensors = tensors_of(Bert(config), jnp.zeros((1, 2), jnp.int32))
    older = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): x for name, x in tensors.items()
    }
    assert older.keys() != tensors.keys()
    found, expected = (read_bert(config, named, OPTION) for named in (older, tensors))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
