"""CelebAMask-HQ in its official layout: which rows there are, what they hold and lack, and files that are damaged."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from sbm_jax import data, types
from sbm_jax.config import build
from sbm_jax.data import celebamask_hq
from sbm_jax.data.celebamask_hq import ATTRIBUTES, CelebaMaskHqConfig, load_celebamask_hq, row_ids
from sbm_jax.errors import SbmError

SPLIT = {"train": [2, 30, 2003], "validation": [7, 11], "test": [5, 2004]}
ORIGINAL = {30: 162_770, 2: 0, 2003: 5, 7: 162_771, 11: 182_637, 5: 182_638, 2004: 202_598}
ALL = sorted(ORIGINAL)
OTHERS = ("Attractive", "Young")
SIDE = 8


def attributes(number):
    """Return the 18 attributes of a row, 0 or 1, which tell its id."""
    return [number >> place & 1 for place in range(len(ATTRIBUTES))]


def table(rows=ALL, names=(*ATTRIBUTES[::-1], *OTHERS)):
    """Return the text of the attributes, in another order than that of the rows that are loaded."""
    lines = [
        f"{number}.jpg  " + " ".join("1" if value else "-1" for value in (*attributes(number)[::-1], 1, 0))
        for number in rows
    ]
    return "\n".join([str(len(rows)), " ".join(names), *lines]) + "\n"


def part(rows, columns, side=SIDE):
    """Return a part that covers these rows and columns, uint8 [side, side]."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[rows, columns] = 255
    return pixels


LEFT, TOP = part(slice(None), slice(0, 3)), part(slice(0, 2), slice(None))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_parts(root, number, **parts):
    for name, pixels in parts.items():
        save(root / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{name}.png", pixels)


def face(number, side=SIDE):
    """Return an image of one colour, which tells its row."""
    return np.full((side, side, 3), (number % 251, 100, 7), np.uint8)


@pytest.fixture
def root(tmp_path):
    """The official files of seven rows, all complete."""
    root = tmp_path / "CelebAMask-HQ"
    for number in ALL:
        save(root / "CelebA-HQ-img" / f"{number}.jpg", face(number), quality=100, subsampling=0)
        save_parts(root, number, skin=part(slice(None), slice(None)), hair=LEFT, hat=TOP)
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(table())
    lines = [f"{number:<10} {original:<10} {original + 1:06}.jpg" for number, original in ORIGINAL.items()]
    mapping = "\n".join(["idx        orig_idx   orig_file", *lines])
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(mapping)
    return root


def archive_of(path, numbers=ALL, folder="CelebA-HQ-img-64/"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("CelebA-HQ-img-64/", "")
        archive.writestr("__MACOSX/._2.jpg", "no image")
        archive.writestr("about.txt", "no image either")
        for number in numbers:
            content = io.BytesIO()
            Image.fromarray(face(number)).save(content, "JPEG", quality=100, subsampling=0)
            archive.writestr(f"{folder}{number}.jpg", content.getvalue())
    return path


def options_of(root, **options):
    return build(CelebaMaskHqConfig, {"directory": str(root), "size": SIDE, **options})


def load(root, names=None, **options):
    return load_celebamask_hq(options_of(root, **options), root.parent / "cache", names)


def splits(dataset):
    return {name: getattr(dataset, name) for name in SPLIT}


def remove_mask(root, *numbers):
    for number in numbers:
        for path in root.glob(f"*/*/{number:05d}_*.png"):
            path.unlink()


def remove_image(root, *numbers):
    for number in numbers:
        (root / "CelebA-HQ-img" / f"{number}.jpg").unlink()


# MARK: Rows


def test_rows_are_those_of_the_official_split_in_the_order_of_their_ids(root):
    dataset = load(root)
    for name, split in splits(dataset).items():
        assert list(split.data) == ["image", "mask", "attributes"]
        assert split.present is None
        image, mask, found = split.data.values()
        assert (image.dtype, image.shape[1:]) == (np.uint8, (SIDE, SIDE, 3))
        assert (mask.dtype, mask.shape[1:]) == (np.uint8, (SIDE, SIDE, 1))
        assert found.dtype == np.float32
        expected = np.stack([face(number) for number in SPLIT[name]])
        assert np.abs(image.astype(int) - expected).max() <= 2
        np.testing.assert_array_equal(found, [attributes(number) for number in SPLIT[name]])
    assert {name: ids.tolist() for name, ids in row_ids(options_of(root)).items()} == SPLIT
    assert dataset.num_classes == {}
    assert len(ATTRIBUTES) == 18


def test_a_mask_is_the_union_of_all_parts_but_the_skin(root):
    save_parts(root, 2, eye_g=part(7, 7), nose=np.zeros((SIDE, SIDE), np.uint8))
    masks = load(root, ["mask"]).train.data["mask"][..., 0]
    union = np.maximum(LEFT, TOP)
    np.testing.assert_array_equal(masks[1], union)
    np.testing.assert_array_equal(masks[0], np.maximum(union, part(7, 7)))


def test_files_are_shrunk_to_the_mean_of_what_a_pixel_covers(root):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    (root / "CelebA-HQ-img" / "2.jpg").unlink()
    save(root / "CelebA-HQ-img" / "2.png", pixels)
    remove_mask(root, 2)
    save_parts(root, 2, neck=part(slice(0, 2), slice(0, 1)), hat=part(0, slice(0, 2)))  # three pixels, one in both
    train = load(root, size=4).train.data
    mean = pixels.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(train["image"][0] - mean).max() <= 1  # rows and columns are rounded one after the other
    assert abs(int(train["mask"][0, 0, 0, 0]) - 0.75 * 255) <= 1
    assert train["mask"][0].sum() == train["mask"][0, 0, 0, 0]


def test_rows_may_lack_what_has_no_file(root):
    remove_mask(root, 2, 30, 7)
    remove_image(root, 2, 11)
    dataset = load(root)
    train, validation, test = splits(dataset).values()
    assert {name: has.tolist() for name, has in train.present.items()} == {
        "image": [False, True, True],
        "mask": [False, False, True],
        "attributes": [True, True, True],  # row 2 has nothing else
    }
    assert validation.present["mask"].tolist() == [False, True]
    assert validation.present["image"].tolist() == [True, False]
    assert test.present is None
    np.testing.assert_array_equal(train.data["mask"][2, ..., 0], np.maximum(LEFT, TOP))
    assert np.abs(train.data["image"][1:].astype(int) - [face(30), face(2003)]).max() <= 2
    np.testing.assert_array_equal(train.data["attributes"][0], attributes(2))


def test_rows_that_have_nothing_that_is_asked_for_are_none(root):
    remove_mask(root, 2, 5)
    assert {name: len(split) for name, split in splits(load(root, ["mask"])).items()} == {
        "train": 2,
        "validation": 2,
        "test": 1,
    }
    assert row_ids(options_of(root), ["mask"])["train"].tolist() == [30, 2003]


def test_test_rows_may_lack_a_mask(root):
    remove_mask(root, 5, 2003)
    assert load(root).test.present["mask"].tolist() == [False, True]
    assert load(root, ["attributes", "image"]).test.present is None


def test_limits_count_the_rows_that_are_left(root):
    remove_mask(root, 2)
    cut = load(root, max_train=1, max_test=1)
    assert [len(split) for split in splits(cut).values()] == [1, 1, 1]
    np.testing.assert_array_equal(cut.train.data["attributes"], [attributes(2)])


# MARK: Where files are


def test_images_may_be_in_an_archive_or_another_directory(root, tmp_path):
    expected = load(root, ["image"])
    others = tmp_path / "moved"
    shutil.move(root / "CelebA-HQ-img", others)
    for images in (archive_of(tmp_path / "images.zip"), archive_of(tmp_path / "flat.zip", folder=""), others):
        found = load(root, ["image"], images=str(images))
        for name, split in splits(found).items():
            np.testing.assert_array_equal(split.data["image"], getattr(expected, name).data["image"])
    some = load(root, images=str(archive_of(tmp_path / "some.zip", [2, 7, 5, 2004])))
    assert some.train.present["image"].tolist() == [True, False, False]


def test_the_directory_may_be_the_one_that_holds_it_and_what_is_not_asked_for_need_not_be_there(root):
    shutil.rmtree(root / "CelebA-HQ-img")
    (root / "CelebAMask-HQ-attribute-anno.txt").unlink()
    found = load_celebamask_hq(options_of(root.parent), root.parent / "cache", ["mask"])
    assert list(found.test.data) == ["mask"]


def test_what_was_decoded_is_read_again_as_long_as_the_files_are_the_same(root, monkeypatch):
    first = load(root)
    monkeypatch.setattr(celebamask_hq.files, "rgb_image", None)
    again = load(root)
    assert again.settings == first.settings
    for name, split in splits(first).items():
        for modality, rows in split.data.items():
            np.testing.assert_array_equal(getattr(again, name).data[modality], rows)
    monkeypatch.undo()
    save_parts(root, 2, hair=np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), np.uint8) * np.uint8(255))
    changed = load(root)
    assert changed.settings["digests"]["train"] != first.settings["digests"]["train"]
    assert changed.settings["digests"]["test"] == first.settings["digests"]["test"]
    assert (changed.train.data["mask"][0] != first.train.data["mask"][0]).any()


def test_settings_follow_attributes_and_archives(root, tmp_path):
    before = load(root, ["attributes"]).settings
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(table().replace("2.jpg  -1", "2.jpg  1"))
    assert load(root, ["attributes"]).settings != before
    archive = archive_of(tmp_path / "images.zip")
    of_zip = load(root, ["image"], images=str(archive)).settings
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr("40.txt", "more that is no image")
    assert load(root, ["image"], images=str(archive)).settings == of_zip
    content = archive.read_bytes()
    archive_of(archive, [*ALL[1:], ALL[0]])
    assert load(root, ["image"], images=str(archive)).settings == of_zip  # the order of members does not matter
    assert archive.read_bytes() != content


def test_a_damaged_cache_is_named(root):
    load(root, ["mask"])
    (path, *_) = sorted((root.parent / "cache" / "celebamask_hq").iterdir())
    content = path.read_bytes()
    other_shape, no_header = content.replace(b"8, 8, 1", b"8, 4, 1"), content.replace(b"}", b"L")
    for damaged in (content[:-1], content[:20], b"", b"PK" + content, other_shape, no_header):
        path.write_bytes(damaged)
        with pytest.raises(SbmError, match=rf"{path.name}, prepared before, is damaged: .*Remove it"):
            load(root, ["mask"])


def test_the_data_set_is_found_by_its_name_and_suits_its_modalities(root, tmp_path):
    remove_mask(root, 30)
    config = data.DataConfig("celebamask_hq", celebamask_hq=options_of(root))
    modalities = [
        types.Modality("attributes", (18,), 2, likelihood="bernoulli"),
        types.Modality("mask", (SIDE, SIDE, 1), 2, bounds=(0.0, 1.0)),
        types.Modality("image", (SIDE, SIDE, 3), 2, bounds=(0.0, 1.0)),
    ]
    loaded = data.load(config, tmp_path / "cache", [modality.name for modality in modalities])
    checked = data.check(loaded, modalities)
    assert list(checked.train.data) == ["attributes", "mask", "image"]
    assert checked.train.present["mask"].tolist() == [True, False, True]
    assert str(tmp_path) not in str(loaded.settings)


# MARK: Errors


def text(path, content):
    return lambda root: (root / path).write_text(content)


def replace(path, old, new):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new, 1))


def cut(pattern):
    def change(root):
        (path,) = root.glob(pattern)
        path.write_bytes(path.read_bytes()[:45])

    return change


TABLE, MAPPING = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"
PIXELS = np.zeros((SIDE, SIDE), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / MAPPING).unlink(), rf"{MAPPING} does not exist; expected a file of the official"),
        (lambda root: (root / TABLE).unlink(), rf"{TABLE} does not exist"),
        (lambda root: shutil.rmtree(root / "CelebA-HQ-img"), r"CelebA-HQ-img is not a directory; expected images"),
        (lambda root: shutil.rmtree(root / "CelebAMask-HQ-mask-anno"), r"mask-anno is not a directory; expected parts"),
        (lambda root: remove_image(root, *ALL), r"CelebA-HQ-img has no images"),
        (lambda root: remove_mask(root, *ALL), r"mask-anno has no files in folders"),
        (cut("CelebA-HQ-img/30.jpg"), r"30\.jpg cannot be read as an image"),
        (cut("*/1/02003_hat.png"), r"02003_hat\.png cannot be read as an image"),
        (lambda root: save(root / "CelebA-HQ-img/30.jpg", face(1, 7)), r"30\.jpg is 7x7; expected a square of 8x8"),
        (lambda root: save(root / "CelebA-HQ-img/30.jpg", face(1, 9)[:8]), r"30\.jpg is 9x8; expected a square"),
        (lambda root: save(root / "CelebA-HQ-img/30.png", face(1)), r"CelebA-HQ-img has 30\.jpg and 30\.png for one"),
        (lambda root: save(root / "CelebA-HQ-img/b.png", face(1)), r"b\.png is not named by a number"),
        (
            lambda root: save(root / "CelebA-HQ-img/1.png", face(1)),
            r"has no line for row 1, which has the modality 'image'",
        ),
        (
            lambda root: save_parts(root, 9, hair=LEFT),
            r"has no line for row 9, which has the modality 'mask'",
        ),
        (lambda root: save_parts(root, 2, beard=LEFT), r"00002_beard\.png is not part of a mask; expected <id>_<part>"),
        (lambda root: save_parts(root, 2, nose=np.zeros((4, 4), np.uint8)), r"is 8x8, and 00002_nose\.png 4x4"),
        (
            lambda root: save(root / "CelebAMask-HQ-mask-anno/9/00002_hair.png", LEFT),
            r"0/00002_hair\.png and .*9/00002_hair\.png show the same part",
        ),
        (
            lambda root: [path.unlink() for path in root.glob("*/0/00002_ha*.png")],
            r"00002_skin\.png is the only part of its mask",
        ),
        (replace(TABLE, "7\n", "8\n"), r"begins with \[\['8'\]\], and has 9 lines; expected the number of rows"),
        (
            replace(TABLE, "\n2.jpg", "\n\n3.jpg"),
            r"has no line for row 3, which has the modality 'attrib",
        ),
        (replace(TABLE, "\n2.jpg", "\n5.jpg"), r"has the line '5\.jpg -1 .*; expected .* each once"),
        (replace(TABLE, "\n2.jpg", "\n2.png"), r"has the line '2\.png"),
        (replace(TABLE, "-1", "0"), r"has the line '2\.jpg 0"),
        (replace(TABLE, "-1", ""), r"has the line '2\.jpg"),
        (replace(TABLE, "Bald", "Bold"), r"has no attribute 'Bald'"),
        (text(TABLE, ""), r"begins with \[\], and has 0 lines"),
        (lambda root: (root / TABLE).write_bytes(b"7\n\xff"), r"cannot be read as text"),
        (replace(MAPPING, "162770", "x"), r"has the line '30 +x +162771\.jpg'; expected idx, orig_idx and orig_file"),
        (replace(MAPPING, "2003 ", "2    "), r"has the line '2 .*once for each idx"),
        (
            lambda root: (root / MAPPING).write_text((root / MAPPING).read_text().replace("182638", "3")[:-40]),
            r"has no line for row 2004",
        ),
    ],
)
def test_what_is_wrong_is_named(root, change, message):
    change(root)
    with pytest.raises(SbmError, match=message):
        load(root)
    assert not list(root.parent.glob("cache/*/.*"))


def test_splits_without_rows_are_refused(root):
    remove_mask(root, 7, 11)
    with pytest.raises(SbmError, match=r"has no validation row with any of mask; expected some"):
        load(root, ["mask"])


def test_options_are_checked(root):
    with pytest.raises(SbmError, match=r"data\.celebamask_hq\.directory is empty; expected the directory of the off"):
        load_celebamask_hq(CelebaMaskHqConfig(), root)
    with pytest.raises(SbmError, match=r"unknown modality of CelebAMask-HQ: 'masks'\. Did you mean 'mask'"):
        load(root, ["masks"])
    for name, value in (("size", 0), ("max_train", 0), ("max_test", -1)):
        with pytest.raises(SbmError, match=rf"data\.celebamask_hq\.{name} is {value}; expected 1"):
            load(root, **{name: value})


def test_damaged_archives_of_images_are_named(root, tmp_path):
    path = tmp_path / "images.zip"
    with pytest.raises(SbmError, match=r"data\.celebamask_hq\.images: .*images\.zip cannot be read"):
        load(root, images=str(path))
    content, rng = archive_of(path).read_bytes(), np.random.default_rng(0)
    path.write_bytes(content[:-60])
    with pytest.raises(SbmError, match=r"images\.zip cannot be read: .*Expected a zip archive of images"):
        load(root, images=str(path))
    place = content.index(b"\xff\xd8") + 200
    path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(SbmError, match=r"images\.zip/CelebA-HQ-img-64/2\.jpg cannot be read: .*Fetch the archive"):
        load(root, images=str(path))
    for turn in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_celebamask_hq(options_of(root, images=str(path)), tmp_path / f"cache_{turn}", ["image"])
        except SbmError:
            continue  # nothing else is raised
