"""More than a thousand bad inputs, drawn by hypothesis: each is refused with a clear error, or has no effect."""

import contextlib
import dataclasses
import gzip
import io
import itertools
import json
import os
import shutil

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sbm_jax.config import plain
from sbm_jax.data import backgrounds, check, polymnist
from sbm_jax.data.arrays import ArraysConfig, load_arrays
from sbm_jax.data.digits import read_idx
from sbm_jax.errors import SbmError
from sbm_jax.experiment import check as check_config
from sbm_jax.experiment_config import apply_changes, make_system, parse_config, read_config
from sbm_jax.training import stages
from sbm_jax.training.checkpoints import Checkpoints
from sbm_jax.types import Dataset, Modality
from tests.robustness.tiny import get_config

# Fixtures that are directories are written anew by each example.
SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@st.composite
def damages(draw):
    """A function that damages bytes: cut, flip, overwrite, or insert."""
    kind = draw(st.sampled_from(["cut", "flip", "fill", "insert"]))
    where, what = draw(st.floats(0.0, 1.0, exclude_max=True)), draw(st.binary(min_size=1, max_size=40))

    def damage(content: bytes) -> bytes:
        at = int(where * len(content))
        if kind == "cut":
            return content[:at]
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ (what[0] or 1)]) + content[at + 1 :]
        return content[:at] + what + content[at + (len(what) if kind == "fill" else 0) :]

    return damage


# MARK: Data

ARRAYS = {
    "a": np.linspace(-1, 1, 60, dtype=np.float32).reshape(12, 5),
    "b": np.arange(24, dtype=np.uint8).reshape(12, 2),
    "label": np.arange(12) % 3,
    "a.present": np.arange(12) % 4 > 0,
}


def _write_arrays(directory, **changes):
    directory.mkdir(exist_ok=True)
    for name in ("train", "validation", "test"):
        arrays = {key: value for key, value in ARRAYS.items() if name == "train" or not key.endswith("present")}
        np.savez(directory / f"{name}.npz", **{**arrays, **(changes if name == "train" else {})})


def _same(dataset, whole):
    pairs = [(getattr(dataset, name), getattr(whole, name)) for name in ("train", "validation", "test")]
    for found, expected in pairs:
        jax.tree.map(np.testing.assert_array_equal, found.data, expected.data)
        jax.tree.map(np.testing.assert_array_equal, found.present, expected.present)
        jax.tree.map(np.testing.assert_array_equal, found.labels, expected.labels)


@settings(max_examples=300, **SETTINGS)
@given(damage=damages(), split=st.sampled_from(["train", "test"]))
def test_damaged_arrays(tmp_path, damage, split):
    _write_arrays(tmp_path / "arrays")
    config = ArraysConfig(str(tmp_path / "arrays"))
    whole = load_arrays(config, tmp_path)
    path = tmp_path / "arrays" / f"{split}.npz"
    path.write_bytes(damage(path.read_bytes()))
    with contextlib.suppress(SbmError):  # else what was damaged is not looked at, such as a date in the archive
        _same(load_arrays(config, tmp_path), whole)


@settings(max_examples=150, **SETTINGS)
@given(
    name=st.sampled_from(["a", "b", "label", "a.present", "b.present"]),
    shape=st.lists(st.integers(0, 13), max_size=4),
    dtype=st.sampled_from(["f4", "f8", "i8", "u1", "?", "c8", "M8[s]", "U3", "S2"]),
    fill=st.sampled_from([0, 1, 7, -1, np.nan, np.inf, 1e40]),
)
def test_arrays_of_any_shape_and_type(tmp_path, name, shape, dtype, fill):
    try:
        with np.errstate(all="ignore"):
            array = np.full(shape, fill).astype(dtype)
    except (ValueError, OverflowError, TypeError):  # there is no such array
        return
    _write_arrays(tmp_path / "arrays", **{name: array})
    modalities = (Modality("a", (5,), 2, "mlp"), Modality("b", (2,), 2, "mlp"))
    try:
        train = load_arrays(ArraysConfig(str(tmp_path / "arrays")), tmp_path).train
        check(Dataset(train, train, train, {}, {}), modalities)
    except SbmError:
        return
    found = train.labels[name] if name == "label" else (train.present if "." in name else train.data)[name[0]]
    np.testing.assert_array_equal(found, array.astype(np.float32) if array.dtype.kind == "f" else array)
    assert train.data["a"].shape == (12, 5)
    assert np.isfinite(train.data["a"]).all()


@settings(max_examples=200, **SETTINGS)
@given(damage=damages(), packed=st.booleans())
def test_damaged_digits(tmp_path, damage, packed):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    content = bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes() + images.tobytes()
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(damage(gzip.compress(content) if packed else content))
    try:
        found = read_idx(path, (20, 28, 28))
    except SbmError:
        return
    assert found.shape == images.shape  # a file without a checksum can be altered unseen, but never misread
    assert packed is False or np.array_equal(found, images)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, on what it skips
@settings(max_examples=200, **SETTINGS)
@given(
    damage=st.none() | damages(),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"]),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    kind=st.sampled_from(["png", "tiff"]),
)
def test_damaged_backgrounds(tmp_path, damage, mode, size, kind):
    buffer = io.BytesIO()
    try:
        Image.new(mode, size).save(buffer, kind)
    except OSError:  # a mode that the format does not have
        return
    directory = tmp_path / "images"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    content = buffer.getvalue()
    (directory / f"one.{kind}").write_bytes(damage(content) if damage else content)
    try:
        (image,) = backgrounds.from_directory(str(directory), 1)
    except SbmError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert min(image.shape[:2]) >= 28


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The images of two modalities, as in the archive of PolyMNIST, and their rows."""
    root = tmp_path_factory.mktemp("archive")
    generator = np.random.default_rng(0)
    for part, name, index in itertools.product(("train", "test"), ("m0", "m1"), range(6)):
        path = root / part / name / f"{index}.{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (28, 28, 3), np.uint8)).save(path)
    return root, _archive_rows(root)


def _archive_rows(root):
    config = polymnist.PolyMnistConfig(archive=str(root), num_modalities=2)
    return {name: list(rows.iterator) for name, rows in polymnist._archive_rows(config).items()}


@settings(max_examples=200, **SETTINGS)
@given(
    damage=st.sampled_from(["remove", "rename"])
    | damages()
    | st.tuples(st.sampled_from(["RGB", "L", "RGBA", "P", "1", "I;16"]), st.integers(1, 40), st.integers(1, 40)),
    which=st.integers(0, 10**6),
)
def test_damaged_archives(archive, damage, which):
    """Members that are missing or cut, and images of another size or mode."""
    root, whole = archive
    paths = sorted(root.rglob("*.png"))
    path = paths[which % len(paths)]
    content, other = path.read_bytes(), path.with_name("7.x.png")
    if damage == "remove":
        path.unlink()
    elif damage == "rename":
        path.rename(other)
    elif callable(damage):
        path.write_bytes(damage(content))
    else:
        mode, *size = damage
        Image.new(mode, size).save(path, "png")
    try:
        found = _archive_rows(root)
    except SbmError:
        return
    finally:
        other.unlink(missing_ok=True)
        path.write_bytes(content)
    if isinstance(damage, tuple):
        assert damage == ("RGB", 28, 28)
    else:  # else what was damaged is not looked at, such as the text of a comment
        jax.tree.map(np.testing.assert_array_equal, found, whole)


@settings(max_examples=60, **SETTINGS)
@given(kept=st.sets(st.sampled_from(["a", "b", "label", "a.present"])), split=st.sampled_from(["train", "test"]))
def test_arrays_with_missing_members(tmp_path, kept, split):
    _write_arrays(tmp_path / "arrays")
    with np.load(tmp_path / "arrays" / f"{split}.npz") as arrays:
        members = {name: array for name, array in arrays.items() if name in kept}
        missing = set(arrays.files) - kept
    np.savez(tmp_path / "arrays" / f"{split}.npz", **members)
    if missing <= {"a.present"}:  # without it everything is present
        load_arrays(ArraysConfig(str(tmp_path / "arrays")), tmp_path)
        return
    with pytest.raises(SbmError):
        load_arrays(ArraysConfig(str(tmp_path / "arrays")), tmp_path)


# MARK: What a run keeps


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """A directory with two checkpoints, and the files of the newer one."""
    directory = tmp_path_factory.mktemp("stage")
    checkpoints = Checkpoints(directory)
    for step in (1, 2):
        checkpoints.save(step, {"params": {"kernel": np.full((40, 30), float(step)), "bias": np.zeros(3)}})
    checkpoints.close()
    files = [path for path in sorted((directory / "checkpoints" / "2").rglob("*")) if path.is_file()]
    return directory, [*files, directory / "manifests" / "2.json"]


@settings(max_examples=60, **SETTINGS)
@given(damage=damages(), which=st.integers(0, 10**6))
def test_damaged_checkpoints(tmp_path, checkpointed, damage, which):
    directory, files = checkpointed
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    path = copy / files[which % len(files)].relative_to(directory)
    content = path.read_bytes()
    path.write_bytes(damage(content) if content else b"x")
    changed = path.read_bytes() != content
    checkpoints = Checkpoints(copy)
    step = checkpoints.latest()
    kernel = checkpoints.restore(step)["params"]["kernel"]
    checkpoints.close()
    if path.parent.name == "manifests":
        assert step in (1, 2)  # its spaces may change
    else:
        assert step == (1 if changed else 2)
    np.testing.assert_array_equal(kernel, float(step))


CONFIG = plain(parse_config(get_config("nowhere")))


@settings(max_examples=100, **SETTINGS)
@given(damage=damages(), name=st.sampled_from(["config.json", "stage.json"]))
def test_damaged_records(tmp_path, damage, name):
    stage = {"fingerprint": "0", "num_steps": 3, "settings": {}}
    content = damage(json.dumps(CONFIG if name == "config.json" else stage).encode())
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(SbmError):
        if name == "config.json":
            read_config(tmp_path)
        else:
            assert stages._read_recipe(tmp_path).keys() >= stage.keys()


# MARK: Configs


def _paths(values, prefix=""):
    if not isinstance(values, dict):
        return [prefix]
    return [path for name, value in values.items() for path in _paths(value, f"{prefix}.{name}".lstrip("."))]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([10**9, 2**63, -(10**12)]),
    st.floats(-2.0, 3.0),
    st.sampled_from([float("nan"), float("inf"), 1e-30]),
    st.text(max_size=6),
    st.sampled_from(["mlp", "unet", "transformer", "iwae", "noise", "vp", "clean", "particles", "sbm_vae_t", "mld"]),
    st.lists(st.integers(-1, 5), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=400, **SETTINGS)
@given(changes=st.dictionaries(st.sampled_from(_paths(CONFIG)), VALUES, min_size=1, max_size=3))
@pytest.mark.slow
def test_random_configs(changes):
    """A config is refused in words, or its networks and samplers can be traced; `test_random_configs` trains some."""
    config = parse_config(CONFIG)
    huge = any(isinstance(value, int) and abs(value) > 1000 for value in changes.values())
    try:
        config = apply_changes(config, changes)
        if huge:  # refused or not, nothing of that size is traced here
            return
        check_config(dataclasses.replace(config, variations=()))
    except SbmError:
        return
    for name in config.systems:
        make_system(config, name)


def test_nothing_of_pickle_is_read(tmp_path):
    """An archive that would run code when it is unpickled is refused, and nothing runs."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    _write_arrays(tmp_path / "arrays", a=np.array([Bomb()] * 12, dtype=object))
    with pytest.raises(SbmError, match="without Python objects"):
        load_arrays(ArraysConfig(str(tmp_path / "arrays")), tmp_path)
    assert not (tmp_path / "exploded").exists()
