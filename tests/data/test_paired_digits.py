"""Digits in several modalities: what is split, how it is paired, and files that are not as they should be."""

import gzip
import pathlib

import numpy as np
import pytest

from sbm_jax import data
from sbm_jax.config import build
from sbm_jax.data.paired_digits import LENGTH, PairedDigitsConfig, as_second, load_paired_digits
from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.types import FormatConfig, Modality

NUM = {"num_train": 60, "num_validation": 20, "num_test": 40}
SPEAKERS, RECORDINGS = 2, 12  # of each digit


def write_idx(path, values):
    content = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()
    path.write_bytes(gzip.compress(content, 1, mtime=0))


def recordings():
    """Recordings whose first sample is their own number and the second their digit, as shares of the peak."""
    label, speaker, index = (
        part.ravel() for part in np.meshgrid(np.arange(10), np.arange(SPEAKERS), np.arange(RECORDINGS), indexing="ij")
    )
    length = 3 + np.arange(len(label)) % 5
    waves = [np.zeros(n, np.int16) for n in length]
    for i, wave in enumerate(waves):
        wave[:3] = i, 100 * label[i], 1000
    return {
        "samples": np.concatenate(waves),
        "length": length.astype(np.int32),
        "label": label.astype(np.uint8),
        "speaker": speaker.astype(np.uint8),
        "index": index.astype(np.uint8),
        "speaker_names": np.array(["one", "two"]),
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    for folder in ("mnist", "spoken_digits", "pendigits"):
        (root / folder).mkdir()
    for part, num in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(num) % 10).astype(np.uint8)
        images = np.zeros((num, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = labels, part == "train"
        images[:, 0, 2:5] = np.arange(num)[:, None] // np.array([1, 256, 65536]) % 256
        write_idx(root / "mnist" / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / "mnist" / f"{part}-labels-idx1-ubyte.gz", labels)
    np.savez(root / "spoken_digits" / "fsdd_8khz_int16.npz", **recordings())
    lines = [", ".join(map(str, [i % 101, i // 101, *[50] * 14, i % 10])) for i in range(300)]
    (root / "pendigits" / "pendigits.tra").write_text("\n".join(lines) + "\n")
    return root


def load(directory, names=None, **options):
    config = build(PairedDigitsConfig, {"directory": str(directory), **NUM, **options})
    return load_paired_digits(config, pathlib.Path(), names)


@pytest.fixture(scope="module")
def loaded(directory):
    return load(directory)


def splits(dataset):
    return {name: getattr(dataset, name) for name in ("train", "validation", "test")}


def numbers(split):
    """Return which image, recording and strokes each row is made of."""
    image, sound, strokes = (np.asarray(split.data[name]).astype(int) for name in ("image", "sound", "strokes"))
    return {
        "image": [tuple(row) for row in image[:, 0, 1:5, 0]],
        "sound": np.round(sound[:, 0] * 1000 / sound.max(axis=1)).astype(int).tolist(),
        "strokes": (strokes[:, 0] + 101 * strokes[:, 1]).tolist(),
    }


def test_all_modalities_of_a_row_show_its_digit(loaded):
    for name, split in splits(loaded).items():
        labels = split.labels["label"]
        assert len(split) == NUM[f"num_{name}"]
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(labels), len(split) // 10)
        assert (labels[:-1] > labels[1:]).any()
        image, sound, tags, strokes = (np.asarray(split.data[key]) for key in ("image", "sound", "tags", "strokes"))
        assert (image.dtype, image.shape[1:]) == (np.uint8, (28, 28, 1))
        assert (sound.dtype, sound.shape[1:]) == (np.int16, (LENGTH,))
        np.testing.assert_array_equal(image[:, 0, 0, 0], labels)
        np.testing.assert_array_equal(np.round(sound[:, 1] * 10.0 / (2**15 - 1)), labels)
        np.testing.assert_array_equal(tags, np.eye(10)[labels])
        np.testing.assert_array_equal(numbers(split)["strokes"] % np.array(10), labels)
        assert (strokes.dtype, strokes.shape[1:]) == (np.float32, (16,))
    assert loaded.num_classes == {"label": 10}


def test_splits_share_nothing_and_are_the_official_ones(loaded):
    found = {name: numbers(split) for name, split in splits(loaded).items()}
    for modality in ("image", "sound", "strokes"):
        train, validation, test = ({*found[name][modality]} for name in ("train", "validation", "test"))
        assert len(train | validation | test) == len(train) + len(validation) + len(test)
    of_training = {name: {number[0] for number in found[name]["image"]} for name in found}
    assert of_training == {"train": {1}, "validation": {1}, "test": {0}}
    indices = {name: np.unique(np.array(found[name]["sound"]) % RECORDINGS) for name in found}
    assert set(indices["test"]) <= set(range(5))
    assert set(indices["validation"]) <= set(range(5, 10))
    assert set(indices["train"]) == {10, 11}


def test_items_come_equally_often_and_are_paired_anew(loaded, directory):
    found = numbers(loaded.train)
    counts = np.unique(found["sound"], return_counts=True)[1]  # 4 recordings of each digit in 6 rows
    assert (len(counts), counts.min(), counts.max()) == (40, 1, 2)
    pairs = {*zip(found["image"], found["sound"], strict=True)}
    assert len(pairs) == 60
    again, other = load(directory), load(directory, seed=1)
    assert numbers(again.train) == found
    assert numbers(other.train)["image"] != found["image"]


def test_a_modality_does_not_depend_on_the_others(loaded, directory, tmp_path):
    (tmp_path / "pendigits").symlink_to(directory / "pendigits")  # what is not asked for need not be there
    alone = load(tmp_path, ["strokes", "tags"])
    assert list(alone.train.data) == ["strokes", "tags"]
    np.testing.assert_array_equal(alone.train.data["strokes"], loaded.train.data["strokes"])
    np.testing.assert_array_equal(alone.train.labels["label"], loaded.train.labels["label"])


def test_settings_tell_the_content(loaded, directory, tmp_path):
    for folder in ("mnist", "spoken_digits"):
        (tmp_path / folder).symlink_to(directory / folder)
    (tmp_path / "pendigits").mkdir()
    text = (directory / "pendigits" / "pendigits.tra").read_text()
    (tmp_path / "pendigits" / "pendigits.tra").write_text(text.replace("50", "51"))
    changed = load(tmp_path).settings
    assert changed["digests"] != loaded.settings["digests"]
    assert changed["digests"]["sound"] == loaded.settings["digests"]["sound"]
    assert load(directory, num_train=70).settings != loaded.settings


def test_repeated_rows_are_converted_once_and_equal_those_converted_one_by_one(loaded):
    options = {"rate": 8000, "length": LENGTH, "num_mels": 16, "window": 512, "hop": 250}
    sound = Modality("sound", (32, 16, 1), 8, bounds=(0.0, 1.0), format=FormatConfig("spectrogram", options))
    checked = data.check(loaded, [sound])
    plain = make_format(sound).to_array(np.asarray(loaded.test.data["sound"]), "x")
    assert checked.test.data["sound"].shape == (40, 32, 16, 1)
    np.testing.assert_allclose(checked.test.data["sound"], plain, atol=1e-6)
    assert loaded.test.data["sound"].shape == (40, LENGTH)
    np.testing.assert_array_equal(loaded.test.take(np.array([3, 1])).data["sound"], loaded.test.data["sound"][[3, 1]])


def test_long_recordings_keep_their_loudest_second():
    wave = np.zeros(20_000, np.int16)
    wave[9_000:9_100] = -50
    wave[100:110] = 10
    found = as_second(wave)
    assert len(found) == LENGTH
    assert (found == -(2**15 - 1)).sum() == 100
    assert (found > 0).sum() == 0
    np.testing.assert_array_equal(as_second(np.zeros(5, np.int16)), np.zeros(5))


# MARK: Errors


def test_what_is_missing_is_named(tmp_path, directory):
    with pytest.raises(SbmError, match=r"data\.digits\.directory is empty; expected the directory of mnist"):
        load("")
    for name, path in (("image", "mnist is not"), ("sound", "fsdd_8khz_int16.npz"), ("strokes", "pendigits.tra")):
        with pytest.raises(SbmError, match=path):
            load(tmp_path, [name])
    with pytest.raises(SbmError, match=r"unknown modality of the digits: 'sounds'\. Did you mean 'sound'"):
        load(directory, ["sounds"])
    with pytest.raises(SbmError, match=r"data\.digits\.num_test is 9; expected 10 or more"):
        load(directory, num_test=9)


def changed(**arrays):
    return recordings() | arrays


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"samples": np.zeros(3, np.int16)}, "no array 'length'"),
        (b"PK damaged", "cannot be read"),
        (changed(samples=np.zeros(7, np.int16)), "has 7 samples; the lengths sum to "),
        (changed(samples=recordings()["samples"].astype(np.float32)), "expected integers"),
        (changed(label=recordings()["label"] + np.uint8(1)), "labels from 1 to 10; expected 0 to 9"),
        (changed(label=recordings()["label"][:-1]), "expected integers"),
        (changed(label=recordings()["label"] // 2), "has no 5 for the train split; expected every digit in each"),
        (changed(index=np.zeros_like(recordings()["index"])), "has no 0 for the train split"),
    ],
)
def test_odd_recordings_are_refused(tmp_path, content, message):
    (tmp_path / "spoken_digits").mkdir()
    path = tmp_path / "spoken_digits" / "fsdd_8khz_int16.npz"
    path.write_bytes(content) if isinstance(content, bytes) else np.savez(path, **content)
    with pytest.raises(SbmError, match=f"fsdd_8khz_int16.npz .*{message}"):
        load(tmp_path, ["sound"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has an array \[0\]; expected lines of 17 integers"),
        ("1,2,3\n", r"has an array \[1, 3\]"),
        ("1,2\n1,2,3\n", "cannot be read"),
        (",".join(["101"] * 16) + ",3\n", "has points from 101 to 101"),
        (",".join(["a"] * 17) + "\n", "cannot be read"),
        (",".join(["9"] * 17) + "\n", "has no 0 for the train split"),
    ],
)
def test_odd_strokes_are_refused(tmp_path, text, message):
    (tmp_path / "pendigits").mkdir()
    (tmp_path / "pendigits" / "pendigits.tra").write_text(text)
    with pytest.raises(SbmError, match=f"pendigits.tra {message}"):
        load(tmp_path, ["strokes"])
