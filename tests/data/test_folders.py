"""Files of every kind become rows under one name, or are refused by their names before anything is trained."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

import sbm_jax
from sbm_jax import data, experiment, types
from sbm_jax.config import build
from sbm_jax.data.folders import FoldersConfig, load_folders
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import parse_config

NAMES = ("photo", "sound", "text", "level")
ENDINGS = dict(zip(NAMES, (".png", ".wav", ".txt", ".npy"), strict=True))
WORDS = ("heron", "owl", "tit")


def value(name, number):
    """Return what the file of a row has, which tells the row."""
    return {
        "photo": np.full((4, 5, 3), number, np.uint8),
        "sound": np.full(8, number / 128, np.float32),
        "text": f"a {WORDS[number % 3]}, №{number}",
        "level": np.arange(3) + number,
    }[name]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        wavfile.write(path, 8000, content)
    elif path.suffix == ".txt":
        path.write_text(content + "\n", encoding="utf-8")
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        Image.fromarray(content).save(path)


@pytest.fixture
def root(tmp_path):
    """Ten training rows and four of the test, each with four files, a number and a word."""
    for split, numbers in (("train", range(10)), ("test", range(20, 24))):
        for number in numbers:
            for name in NAMES:
                write(tmp_path / split / name / f"row.{number:02}{ENDINGS[name]}", value(name, number))
        lines = [f"row.{number:02},{number % 2},{WORDS[number % 3]}" for number in numbers]
        (tmp_path / split / "labels.csv").write_text("\n".join(["row,parity,kind", *reversed(lines)]))
    return tmp_path


def load(root, names=NAMES, **options):
    return load_folders(FoldersConfig(str(root), 8000, **options), root, names)


def test_files_of_one_name_are_one_row(root):
    dataset = load(root)
    assert [len(split) for split in dataset[:3]] == [9, 1, 4]
    assert dataset.test.present is None
    assert dataset.test.data["photo"].shape == (4, 4, 5, 3)
    np.testing.assert_array_equal(dataset.test.data["photo"][:, 0, 0, 0], [20, 21, 22, 23])
    np.testing.assert_array_equal(dataset.test.data["sound"][:, 0], np.arange(20, 24) / np.float32(128))
    assert dataset.test.data["text"].tolist() == [value("text", number) for number in range(20, 24)]
    np.testing.assert_array_equal(dataset.test.data["level"][:, 2], np.arange(22, 26))
    assert dataset.num_classes == {"parity": 2, "kind": 3}
    np.testing.assert_array_equal(dataset.test.labels["parity"], [0, 1, 0, 1])
    np.testing.assert_array_equal(dataset.test.labels["kind"], [2, 0, 1, 2])  # by their place among the words
    for name in ("train", "validation"):
        rows = getattr(dataset, name)
        numbers = rows.data["photo"][:, 0, 0, 0]
        np.testing.assert_array_equal(rows.data["level"][:, 0], numbers)
        np.testing.assert_array_equal(rows.labels["kind"], numbers % 3)


def test_the_data_set_is_found_by_its_name_and_checked_by_formats(root):
    classes = [value("text", number) for number in (*range(10), *range(20, 24))]
    kinds = {"name": "category", "options": {"classes": classes}}
    modalities = [
        build(types.Modality, {"name": "text", "shape": (14,), "latent_size": 2, "format": kinds}),
        types.Modality("photo", (4, 5, 3), 2),
    ]
    config = data.DataConfig("folders", folders=FoldersConfig(str(root)))
    dataset = data.check(data.load(config, root / "cache", ["text", "photo"]), modalities)
    np.testing.assert_array_equal(dataset.test.data["text"].argmax(axis=1), [10, 11, 12, 13])
    assert dataset.test.data.keys() == {"text", "photo"}  # the sounds, which want a rate, are not read
    assert str(root) not in str(dataset.settings)


def test_rows_may_lack_modalities(root):
    (root / "train" / "sound" / "row.03.wav").unlink()
    (root / "test" / "sound" / "row.21.wav").unlink()
    (root / "train" / "text" / "row.00.txt").unlink()
    write(root / "validation" / "photo" / "x.png", value("photo", 1))
    for name in NAMES:
        write(root / "validation" / name / f"y{ENDINGS[name]}", value(name, 2))
    (root / "validation" / "labels.csv").write_text("row,kind,parity\ny,tit,1\nx,owl,0\nunread,owl,1\n")
    dataset = load(root)
    assert [len(split) for split in dataset[:3]] == [10, 2, 4]
    assert dataset.train.present["sound"].tolist() == [number != 3 for number in range(10)]
    assert dataset.train.present["text"].tolist() == [number != 0 for number in range(10)]
    assert dataset.train.present["photo"].all()
    assert dataset.test.present["sound"].sum() == 3
    np.testing.assert_array_equal(dataset.train.data["sound"][4:, 0], np.arange(4, 10) / np.float32(128))
    assert dataset.train.data["text"][0] in dataset.train.data["text"][1:]  # what any format can read
    assert dataset.validation.present["level"].tolist() == [False, True]
    assert dataset.validation.labels["kind"].tolist() == [1, 2]


def test_settings_follow_the_content(root):
    before = load(root).settings
    assert load(root).settings == before != load(root, seed=1).settings
    write(root / "test" / "level" / "row.20.npy", value("level", 7))
    changed = load(root).settings
    assert changed != before
    (root / "train" / "labels.csv").write_text((root / "train" / "labels.csv").read_text().replace("0,owl", "1,owl"))
    assert load(root).settings != changed


def test_labels_are_optional_and_so_are_names(root):
    for split in ("train", "test"):
        (root / split / "labels.csv").unlink()
    (root / "train" / "photo" / ".DS_Store").write_bytes(b"\0")
    (root / "train" / "photo" / "Thumbs.db").write_bytes(b"\0")
    (root / "train" / ".cache").mkdir()
    dataset = load(root, None)
    assert {*dataset.train.data} == {*NAMES}
    assert dataset.num_classes == {}


def test_grey_images_have_one_channel(root):
    for path in (*root.glob("*/photo/*.png"),):
        Image.open(path).convert("L").save(path)
    assert load(root).train.data["photo"].shape == (9, 4, 5, 1)
    first = next(iter(sorted(root.glob("train/photo/*.png"))))
    Image.open(first).convert("RGB").save(first)
    with pytest.raises(SbmError, match=r"row\.00\.png is uint8 \[4, 5, 3\]; expected uint8 \[4, 5, 1\]"):
        load(root)


def put(path, content):
    return lambda root: write(root / path, content)


def remove(pattern):
    return lambda root: [path.unlink() for path in root.glob(pattern)]


def text(path, content):
    return lambda root: (root / path).write_bytes(content)


def cut(path):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:40])


def pixels_of_16_bits(root):
    Image.fromarray(np.full((4, 5), 7, np.uint16)).save(root / "train/photo/row.02.png")


def another_rate(root):
    wavfile.write(root / "train/sound/row.02.wav", 16000, value("sound", 2))


def two_channels(root):
    wavfile.write(root / "train/sound/row.02.wav", 8000, np.zeros((8, 2), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("test/text/*"), r"test/text has no files"),
        (lambda root: (root / "test").rename(root / "tests"), r"test is not a directory; expected train/<modality>"),
        (lambda root: (root / "train/text").rename(root / "train/texts"), r"'text'\. Did you mean 'texts'"),
        (text("train/text/row.02.doc", b"a"), r"row\.02\.doc is not one of \.png"),
        (lambda root: (root / "train/text/more").mkdir(), r"text/more is not one of"),
        (put("train/text/row.02.npy", np.zeros(3)), r"row\.02\.npy and row\.02\.txt share a row"),
        (put("train/photo/row.02.JPG", value("photo", 1)), r"share a row; expected one file"),
        (put("train/text/new.npy", np.zeros(3)), r"are of different types"),
        (cut("train/photo/row.02.png"), r"row\.02\.png cannot be read as an image"),
        (cut("train/sound/row.02.wav"), r"row\.02\.wav cannot be read as a WAV"),
        (cut("train/level/row.02.npy"), r"row\.02\.npy cannot be read"),
        (text("train/text/row.02.txt", b"\xff\xfe\x00"), r"row\.02\.txt cannot be read as UTF-8"),
        (text("train/text/row.02.txt", b"a\0"), r"row\.02\.txt has the character NUL"),
        (put("train/level/row.02.npy", np.array([1, np.nan, 2])), r"row\.02\.npy is float64, or has NaN"),
        (put("train/level/row.02.npy", np.array([{}], object)), r"row\.02\.npy cannot be read: Object arrays"),
        (put("train/level/row.02.npy", np.zeros(3)), r"row\.02\.npy is float64 \[3\]; expected int64 \[3\]"),
        (put("train/level/row.02.npy", np.arange(4)), r"row\.02\.npy is int64 \[4\]; expected int64 \[3\], like most"),
        (put("train/photo/row.02.png", np.zeros((5, 5, 3), np.uint8)), r"row\.02\.png is uint8 \[5, 5, 3\]"),
        (
            put("train/sound/row.02.wav", np.zeros(9, np.float32)),
            r"row\.02\.wav is float32 \[9\]; expected float32 \[8\]",
        ),
        (pixels_of_16_bits, r"row\.02\.png has 16 bits per channel; expected 8"),
        (another_rate, r"row\.02\.wav has 16000 samples per second; expected 8000"),
        (two_channels, r"row\.02\.wav has 2 channels"),
        (
            lambda root: [path.rename(path.with_stem(f"x{path.stem}")) for path in root.glob("train/text/*")],
            r"no row of .*train has a file in each of photo, sound, text, level",
        ),
        (
            text("train/labels.csv", b"row,parity,kind\nrow.00,1,owl\n"),
            r"labels\.csv has no line for row 'row\.01' \(9",
        ),
        (text("train/labels.csv", b"name,parity\nrow.00,1\n"), r"has the columns \['name', 'parity'\]; expected 'row'"),
        (text("train/labels.csv", b"row,parity\nrow.00,1\nrow.00,0\n"), r"has the line \['row\.00', '0'\]"),
        (text("train/labels.csv", b"row,parity\nrow.00\n"), r"has the line \['row\.00'\]"),
        (text("train/labels.csv", b""), r"labels\.csv cannot be read as a table"),
        (text("train/labels.csv", b"row,\xff\n"), r"labels\.csv cannot be read as a table"),
        (remove("test/labels.csv"), r"test/labels\.csv has labels for \[\]; expected those of the training rows"),
        (
            lambda root: (root / "test/labels.csv").write_text(
                "row,parity,kind\n" + "".join(f"row.{n},1,wren\n" for n in range(20, 24))
            ),
            r"test/labels\.csv: column 'kind' has 'wren', which no training row has",
        ),
    ],
)
def test_what_is_wrong_is_named(root, change, message):
    change(root)
    with pytest.raises(SbmError, match=message):
        load(root)


def test_splits_must_be_alike(root):
    for path in root.glob("test/level/*.npy"):
        np.save(path, np.arange(4))
    with pytest.raises(SbmError, match=r"test/level has arrays \[4\] of dtype kind 'i'; expected \[3\]"):
        load(root)


def test_options_are_checked(root, tmp_path):
    with pytest.raises(SbmError, match=r"data\.folders\.directory is empty"):
        load_folders(FoldersConfig(), tmp_path)
    with pytest.raises(SbmError, match=r"data\.folders\.rate is 0, but there is .*row\.00\.wav"):
        load_folders(FoldersConfig(str(root)), tmp_path, NAMES)
    with pytest.raises(SbmError, match="validation_fraction"):
        FoldersConfig(validation_fraction=1.0)
    with pytest.raises(SbmError, match=r"data\.folders\.rate is -1"):
        FoldersConfig(rate=-1)


def test_the_rate_of_files_is_that_of_the_format():
    config = sbm_jax.default_config()
    config.data.name = "folders"
    config.data.folders.rate = 16_000
    sound = {
        "name": "spectrogram",
        "options": {"rate": 8000, "length": 8000, "num_mels": 32, "window": 512, "hop": 250},
    }
    config.modalities = (
        {"name": "sound", "shape": (32, 32, 1), "latent_size": 4, "codec": "mlp", "format": sound}
        | {"bounds": (0.0, 1.0)},
        {"name": "text", "shape": (4,), "latent_size": 4, "codec": "mlp"},
    )
    with pytest.raises(SbmError, match="rate is 16000, but modality 'sound' has a format of 8000"):
        experiment.check(parse_config(config))
