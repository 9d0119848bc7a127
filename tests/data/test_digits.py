import gzip
import importlib.util

import numpy as np
import pytest

from sbm_jax.data import digits
from sbm_jax.errors import SbmError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write_idx(path, values):
    content = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)


@pytest.fixture(scope="module")
def mnist_arrays():
    labels = np.arange(70_000, dtype=np.uint8) % 10
    images = np.zeros((70_000, 28, 28), np.uint8)
    images[:, 0, 0] = labels
    images[:, 0, 1:4] = np.arange(70_000)[:, None] // np.array([1, 256, 65536]) % 256
    return dict(zip(NAMES, (images[:60_000], labels[:60_000], images[60_000:], labels[60_000:]), strict=True))


def test_sklearn_digits_are_split_in_three_without_overlap():
    parts = digits.from_sklearn("", seed=3)
    assert [len(part.labels) for part in parts] == [1400, 97, 300]
    for part in parts:
        assert part.images.shape == (len(part.labels), 28, 28)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert set(part.labels) == set(range(10))
    seen = [{image.tobytes() for image in part.images} for part in parts]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_sklearn_split_depends_on_the_seed_alone():
    first, again, other = (digits.from_sklearn("", seed=seed).test for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.labels != other.labels).any()


def test_sklearn_digits_look_like_mnist():
    images = digits.from_sklearn("", seed=0).train.images
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()
    ink = (images > 128).mean(axis=(1, 2))
    assert ink.min() > 0.12  # 0.151 to 0.314, of a fixed set
    assert ink.max() < 0.35
    height = (images > 128).any(axis=2).sum(axis=1)
    assert 23 <= np.median(height) <= 24


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_files_are_read_under_every_spelling(tmp_path, mnist_arrays, mark, end):
    if (mark, end) not in (("-", ".gz"), (".", "")):
        mnist_arrays = {name: values for name, values in mnist_arrays.items() if name.startswith("t10k")}
    for name, values in mnist_arrays.items():
        write_idx(tmp_path / (name.replace("-idx", f"{mark}idx") + end), values)
    if len(mnist_arrays) < 4:
        found = digits._read_mnist(str(tmp_path), "t10k", 10_000)
        np.testing.assert_array_equal(found.labels, mnist_arrays[NAMES[3]])
        return
    train, validation, test = digits.from_mnist(str(tmp_path), seed=0)
    assert [len(part.labels) for part in (train, validation, test)] == [50_000, 10_000, 10_000]
    np.testing.assert_array_equal(train.images, mnist_arrays[NAMES[0]][:50_000])
    np.testing.assert_array_equal(validation.images, mnist_arrays[NAMES[0]][50_000:])
    np.testing.assert_array_equal(test.labels, mnist_arrays[NAMES[3]])


def test_missing_mnist_file_is_named(tmp_path):
    with pytest.raises(SbmError, match="no file train-images-idx3-ubyte; expected"):
        digits.from_mnist(str(tmp_path), seed=0)


@pytest.mark.parametrize(("directory", "message"), [("", "is empty"), ("/does/not/exist", "is not a directory")])
def test_missing_directory_is_named(directory, message):
    with pytest.raises(SbmError, match=f"digits_directory.*{message}"):
        digits.from_mnist(directory, seed=0)


IDX = bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", IDX[:-1], "holds 3 values; expected 4"),
        ("a", IDX + b"x", "holds 5 values; expected 4"),
        ("a", b"\x00\x00\x0d\x01" + IDX[4:], "starts with 00000d01; expected 00000801"),
        ("a", b"", "starts with ; expected 00000801"),
        ("a", IDX[:7] + b"\x05" + IDX[8:], r"declares the shape \[5\]"),
        ("a", IDX[:6], r"declares the shape \[\]"),
        ("a.gz", gzip.compress(IDX, mtime=0)[:-9], "cannot be read"),
        ("a.gz", IDX, "cannot be read"),
    ],
)
def test_bad_idx_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SbmError, match=message) as caught:
        digits.read_idx(tmp_path / name, (4,))
    assert str(tmp_path / name) in str(caught.value)


def test_good_idx_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(IDX)
    np.testing.assert_array_equal(digits.read_idx(tmp_path / "a", (4,)), [1, 2, 3, 4])


def test_tfds_without_tensorflow_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SbmError, match="needs TensorFlow"):
        digits.from_tfds("", seed=0)


class UnpreparedBuilder:
    """Stands for the stock builder on a machine without data and without a network."""

    URL = "http://127.0.0.1:9/mnist/"
    data_path = "nowhere"

    def is_prepared(self):
        return False


def test_tfds_without_data_or_network_fails_at_once(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(digits.tfds, "builder", lambda *_, **__: UnpreparedBuilder())
    with pytest.raises(SbmError, match=r"not prepared under nowhere.*cannot be downloaded"):
        digits.from_tfds("", seed=0)


@pytest.mark.peer
def test_tfds_reads_what_the_library_prepared():
    pytest.importorskip("tensorflow")
    train, validation, test = digits.from_tfds("", seed=0)
    assert [len(part.labels) for part in (train, validation, test)] == [50_000, 10_000, 10_000]
    assert train.images.shape[1:] == (28, 28)
