"""MHD's files, as PyTorch writes them: read without it, and refused where they name anything but tensors."""

import collections
import io
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from sbm_jax.config import build
from sbm_jax.data import torch_files
from sbm_jax.data.mhd import MhdConfig, load_mhd
from sbm_jax.errors import SbmError

STORAGES = {"f8": "DoubleStorage", "f4": "FloatStorage", "i8": "LongStorage", "u1": "ByteStorage", "b1": "BoolStorage"}


class Tensor:
    """An array that is pickled as PyTorch pickles a tensor: a view of a storage, whose values are a part of the zip."""

    def __init__(self, array, offset=0, size=None, stride=None):
        self.values = np.ascontiguousarray(array).ravel()
        self.offset, self.size = offset, tuple(np.shape(array) if size is None else size)
        steps = [int(np.prod(self.size[i + 1 :])) for i in range(len(self.size))]
        self.stride = tuple(steps if stride is None else stride)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, request):
    """Modules under PyTorch's names, so that pickles can name what is in them."""
    if request.node.get_closest_marker("peer"):
        return
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*arguments):
        raise AssertionError(arguments)

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    torch._utils, utils._rebuild_tensor_v2 = utils, rebuild
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def save(path, content, order="little", lie=0):
    """Write a file as `torch.save` does."""
    torch, parts, pickled = sys.modules["torch"], {}, io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, np.ndarray) or not value.flags.writeable:
                return None
            key = str(len(parts))
            parts[key] = value.astype(value.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
            kind = getattr(torch, STORAGES[value.dtype.str[1:]])
            return ("storage", kind, key, "cpu", len(value) + lie)

        def reducer_override(self, value):
            if not isinstance(value, Tensor):
                return NotImplemented
            given = (value.values, value.offset, value.size, value.stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, given

    Pickler(pickled, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", order)
        for key, values in parts.items():
            archive.writestr(f"archive/data/{key}", values)
        archive.writestr("archive/version", "3\n")


# MARK: Files of torch.save


@pytest.mark.parametrize("order", ["little", "big"])
def test_tensors_become_arrays(tmp_path, order):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=2), np.arange(5), np.array([True, False])]
    arrays += [np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.array(2.5), np.zeros((0, 3), np.float32)]
    save(tmp_path / "a.pt", {"all": [Tensor(array) for array in arrays], "rest": ("text", 1, 2.5, None, [3])}, order)
    found = torch_files.read_torch(tmp_path / "a.pt")
    assert found["rest"] == ("text", 1, 2.5, None, [3])
    for one, array in zip(found["all"], arrays, strict=True):
        assert one.dtype.newbyteorder("=") == array.dtype
        np.testing.assert_array_equal(one, array)


def test_views_are_views_of_their_storage(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    save(tmp_path / "a.pt", [Tensor(base, 6, (2, 6), (6, 1)), Tensor(base, 0, (6, 4), (1, 6))])
    part, transposed = torch_files.read_torch(tmp_path / "a.pt")
    np.testing.assert_array_equal(part, base[1:3])
    np.testing.assert_array_equal(transposed, base.T)


def test_arrays_of_numpy_are_read(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False  # those that are become storages here
    save(tmp_path / "a.pt", {"array": array, "number": np.float64(2.5)})
    found = torch_files.read_torch(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["array"], array)
    assert found["number"] == 2.5


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (3,), (3,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(tmp_path, offset, size, stride):
    save(tmp_path / "a.pt", Tensor(np.zeros(6, np.float32), offset, size, stride))
    with pytest.raises(SbmError, match=r"a\.pt cannot be read as a file of torch\.save"):
        torch_files.read_torch(tmp_path / "a.pt")


class Harmful:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("value", [Harmful(), os.getcwd, eval, pathlib.Path("a"), collections.Counter("a")])
def test_whatever_else_a_pickle_names_is_refused_and_not_run(tmp_path, value):
    Harmful.path = tmp_path / "made"
    save(tmp_path / "a.pt", [Tensor(np.zeros(2)), value])
    with pytest.raises(SbmError, match=r"a\.pt names [\w.]+; expected only tensors"):
        torch_files.read_torch(tmp_path / "a.pt")
    assert not Harmful.path.exists()


def test_attributes_of_what_is_known_can_not_be_set(tmp_path):
    import torch

    class Setting:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (), (None, {"__defaults__": (1,)})

    save(tmp_path / "a.pt", Setting())
    with pytest.raises(SbmError):
        torch_files.read_torch(tmp_path / "a.pt")
    assert torch_files._Unpickler.tensor.__defaults__ is None


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    for write, message in (
        (lambda: path.write_bytes(b"\x80\x02 an old file"), "is not a zip archive .* PyTorch before 1.6"),
        (lambda: save(path, Tensor(np.zeros(3)), lie=1), "part '0' has 3 values, but declares 4"),
        (lambda: zipfile.ZipFile(path, "w").close(), "has 0 parts named data.pkl"),
    ):
        write()
        with pytest.raises(SbmError, match=message):
            torch_files.read_torch(path)
    with pytest.raises(SbmError, match="cannot be read"):
        torch_files.read_torch(tmp_path / "none.pt")
    save(path, [Tensor(np.arange(50.0)), Tensor(np.arange(9))])
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            torch_files.read_torch(path)
        except SbmError:
            continue  # nothing else is raised


# MARK: MHD


def content(num, **changes):
    labels = np.arange(num) % 10
    images = np.zeros((num, 1, 28, 28), np.float32)
    images[:, 0, 2, 3] = np.arange(num) / num
    sounds = np.zeros((num, 4, 32, 32), np.float32)
    sounds[:, 1, 5, 7] = np.arange(num) / num  # band 32 + 5 of frame 7
    trajectories = np.tile(np.arange(200, dtype=np.float32) / 200, (num, 1))
    parts = {"labels": labels, "image": images, "trajectory": trajectories, "sound": sounds} | changes
    ranges = ({"min": 0.0, "max": 1.0}, {"min": -200.0, "max": -47.563736})
    return (*(Tensor(part) if isinstance(part, np.ndarray) else part for part in parts.values()), *ranges)


def load(directory, names=None, **options):
    return load_mhd(build(MhdConfig, {"directory": str(directory), **options}), pathlib.Path(), names)


@pytest.fixture
def directory(tmp_path):
    save(tmp_path / "mhd_train.pt", content(50))
    save(tmp_path / "mhd_test.pt", content(20))
    return tmp_path


def test_rows_have_channels_last_and_time_first(directory):
    found = load(directory)
    assert [len(getattr(found, name)) for name in ("train", "validation", "test")] == [45, 5, 20]
    test = found.test
    assert {name: rows.shape[1:] for name, rows in test.data.items()} == {
        "image": (28, 28, 1),
        "trajectory": (200,),
        "sound": (32, 128, 1),
    }
    assert {rows.dtype for rows in test.data.values()} == {np.dtype(np.float32)}
    values = (np.arange(20) / 20).astype(np.float32)
    np.testing.assert_array_equal(test.data["image"][:, 2, 3, 0], values)
    np.testing.assert_array_equal(test.data["sound"][:, 7, 37, 0], values)
    assert (test.data["sound"] > 0).sum() == 19
    np.testing.assert_array_equal(test.labels["label"], np.arange(20) % 10)
    both = np.concatenate([found.train.data["image"], found.validation.data["image"]])[:, 2, 3, 0]
    np.testing.assert_allclose(np.sort(both), np.arange(50) / 50, atol=1e-6)


def test_settings_and_names(directory):
    found = load(directory, ["sound"])
    assert list(found.train.data) == ["sound"]
    save(directory / "mhd_test.pt", content(20, labels=np.arange(20)[::-1] % 10))
    assert load(directory).settings != found.settings
    assert load(directory, seed=1).settings["seed"] == 1
    with pytest.raises(SbmError, match=r"unknown modality of MHD: 'audio'"):
        load(directory, ["audio"])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: [1, 2], "holds a list of 2; expected six items: labels"),
        (lambda: Tensor(np.zeros(5)), "holds a ndarray of 5"),
        (
            lambda: content(20, sound=np.zeros((20, 3, 32, 32), np.float32)),
            r"sound is float32 \[20, 3, 32, 32\]; expected floats \['N', 4, 32",
        ),
        (lambda: content(20, image=np.zeros((20, 1, 28, 28), np.uint8)), "image is uint8 .*expected floats"),
        (lambda: content(20, image=np.zeros((19, 1, 28, 28), np.float32)), "has 20 labels, but 19 rows of image"),
        (lambda: content(20, labels=np.arange(20)), "has no labels, or labels outside 0 to 9"),
        (lambda: content(20, labels=np.zeros(20)), r"labels is float64 \[20\]; expected integers"),
    ],
)
def test_other_content_is_refused(directory, made, message):
    save(directory / "mhd_test.pt", made())
    with pytest.raises(SbmError, match=rf"mhd_test\.pt:? {message}"):
        load(directory)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(SbmError, match=r"data\.mhd\.directory is empty; expected the directory of mhd_train\.pt"):
        load("")
    with pytest.raises(SbmError, match=r"mhd_train\.pt does not exist"):
        load(tmp_path)
    with pytest.raises(SbmError, match=r"validation_fraction is 1\.0"):
        load(tmp_path, validation_fraction=1.0)


@pytest.mark.peer
def test_what_pytorch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for part, num in (("train", 30), ("test", 20)):
        arrays = [rng.random((num, *shape), np.float32) for shape in ((1, 28, 28), (200,), (4, 32, 32))]
        tensors = (torch.arange(num) % 10, *map(torch.from_numpy, arrays), {"min": 0.0}, [torch.tensor(-200.0)])
        torch.save(tensors, tmp_path / f"mhd_{part}.pt")
    sounds = torch.cat(list(tensors[3].unbind(1)), dim=1).permute(0, 2, 1)[..., None]
    found = load(tmp_path).test
    np.testing.assert_array_equal(found.data["sound"], sounds.numpy())
    np.testing.assert_array_equal(found.data["image"][..., 0], arrays[0][:, 0])
    views = [torch.arange(24.0).reshape(4, 6).T[1:], torch.zeros(3, dtype=torch.int16), torch.ones(2, 2) > 0]
    torch.save(views, tmp_path / "views.pt")
    for one, other in zip(torch_files.read_torch(tmp_path / "views.pt"), views, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
