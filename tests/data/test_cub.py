"""CUB-200-2011 from its official files, made by hand."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from sbm_jax.data.cub import CubConfig, load_cub
from sbm_jax.errors import SbmError

SPECIES = ("001.Albatross", "002.Auklet")
NUMBER = 12  # images; every third is for tests


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    lines = {name: [] for name in ("images", "train_test_split", "image_class_labels", "bounding_boxes")}
    for number in range(1, NUMBER + 1):
        species = SPECIES[number % 2]
        name = f"{species}/bird_{number}.jpg"
        lines["images"].append(f"{number} {name}")
        lines["train_test_split"].append(f"{number} {int(number % 3 > 0)}")
        lines["image_class_labels"].append(f"{number} {number % 2 + 1}")
        lines["bounding_boxes"].append(f"{number} 20.0 4.0 8.0 16.0")
        for folder in ("images", "text"):
            (tmp_path / folder / species).mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((24, 40, 3), np.uint8)
        pixels[:, 20:28] = (10 * number, 0, 0)  # the bird
        Image.fromarray(pixels).save(tmp_path / "images" / name, quality=100, subsampling=0)
        captions = [f"bird {number}, caption {i}" for i in range(1 + number % 2)]
        (tmp_path / "text" / name).with_suffix(".txt").write_text("\n".join(captions) + "\n\n")
    lines["train_test_split"].append("99 1")  # the official file has images that are not here
    lines["images"].append("99 002.Auklet/bird_99.jpg")
    lines["image_class_labels"].append("99 2")
    lines["bounding_boxes"].append("99 0 0 1 1")
    for name, content in lines.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(content) + "\n")
    return tmp_path


def load(root, **options):
    return load_cub(CubConfig(directory=str(root), size=8, **options), root / "cache")


def test_rows_are_images_with_each_of_their_captions(root):
    dataset = load(root)
    test = dataset.test
    assert test.data["caption"].tolist() == [
        *("bird 3, caption 0", "bird 3, caption 1", "bird 6, caption 0"),
        *("bird 9, caption 0", "bird 9, caption 1", "bird 12, caption 0"),
    ]
    assert test.labels["label"].tolist() == [1, 1, 0, 1, 1, 0]
    assert test.data["image"].shape == (6, 8, 8, 3)
    reds = test.data["image"].max(axis=(1, 2, 3))
    np.testing.assert_allclose(reds, [30, 30, 60, 90, 90, 120], atol=12)
    assert dataset.num_classes == {"label": 2}
    images = [{caption.partition(",")[0] for caption in split.data["caption"]} for split in dataset[:2]]
    assert len(images[0]) + len(images[1]) == 8
    assert not images[0] & images[1]


@pytest.mark.parametrize(("crop", "share"), [("none", 8 / 40), ("square", 8 / 24), ("box", 8 / 16)])
def test_what_is_shown_of_an_image(root, crop, share):
    images = load(root, crop=crop).test.data["image"].astype(float)
    assert images[-1, ..., 0].mean() / 120 == pytest.approx(share, abs=0.06)


def test_settings_tell_the_content(root):
    first = load(root).settings
    assert load(root).settings == first
    assert load(root, seed=3).settings != first
    (root / "text" / SPECIES[0] / "bird_6.txt").write_text("another caption\n")
    assert load(root).settings != first


def test_one_modality_and_fewer_images(root):
    dataset = load_cub(CubConfig(directory=str(root), max_images=4), root / "cache", ["caption"])
    assert set(dataset.test.data) == {"caption"}
    assert len(dataset.test) == 6
    assert len({caption.partition(",")[0] for caption in dataset.train.data["caption"]}) == 4


def write(name, text):
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "images.txt").unlink(), r"images\.txt does not exist"),
        (write("images.txt", "one a.jpg\n"), r"images\.txt has the line 'one a\.jpg'"),
        (write("train_test_split.txt", "1 2\n"), "'2' is neither 0 nor 1"),
        (write("train_test_split.txt", "1 1\n"), "no line for image 2"),
        (write("bounding_boxes.txt", "1 0 0 0 0\n"), "expected x, y, width and height"),
        (write(f"text/{SPECIES[1]}/bird_3.txt", "\n"), r"bird_3\.txt has no captions"),
        (lambda root: (root / "text" / SPECIES[1] / "bird_3.txt").unlink(), r"bird_3\.txt does not exist"),
        (write(f"images/{SPECIES[1]}/bird_3.jpg", "no image"), r"bird_3\.jpg cannot be read as an image"),
        (write("train_test_split.txt", "".join(f"{i} 1\n" for i in range(1, 100))), "no image of the test split"),
    ],
)
def test_what_is_missing_or_damaged_is_named(root, damage, message):
    damage(root)
    with pytest.raises(SbmError, match=message):
        load(root, crop="box")


def test_species_that_training_images_lack_are_named(root):
    labels = "".join(f"{i} {2 if i == 3 else 1}\n" for i in range(1, 100))
    (root / "image_class_labels.txt").write_text(labels)
    with pytest.raises(SbmError, match="the test split has images of species 2"):
        load(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": "middle"}, "crop"), ({"size": 0}, "size"), ({"validation_fraction": 1.0}, "validation_fraction")],
)
def test_bad_options(options, message):
    with pytest.raises(SbmError, match=f"data.cub.{message}"):
        dataclasses.replace(CubConfig(), **options)


def test_unknown_modalities(root):
    with pytest.raises(SbmError, match="unknown modality of CUB: 'text'"):
        load_cub(CubConfig(directory=str(root)), root, ["text"])
