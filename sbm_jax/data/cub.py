"""CUB-200-2011: images of birds and captions, from the official files.

References: C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011.
S. Reed, Z. Akata, B. Schiele and H. Lee, "Learning Deep Representations of Fine-grained Visual Descriptions", 2016,
https://arxiv.org/abs/1605.05395 (the captions).
"""

import hashlib
import logging
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.progress import progress_bar
from sbm_jax.storage import user_path

logger = logging.getLogger(__name__)

MODALITIES = ("image", "caption")
CROPS = ("none", "square", "box")

_RECIPE = 1  # increment when the same files give other rows
_AGAIN = "Unpack the official archive again."


@checked_dataclass
class CubConfig:
    """Birds of 200 species with ten captions per image; the official split tests on 5,794 of the 11,788 images.

    | modality  | from                      | rows are                                       |
    |-----------|---------------------------|------------------------------------------------|
    | `image`   | `images/{species}/*.jpg`  | uint8 [size, size, 3]                          |
    | `caption` | `text/{species}/*.txt`    | strings, one per non-empty line                |

    A row is an image with one of its captions: each image gives one row per caption, next to each other. Images in
    `images.txt` without a file are left out. The label is the species, numbered in the order of `classes.txt` among
    the species of the training images.

    Attributes:
      directory: the unpacked official archive, `CUB_200_2011`.
      captions: directory of captions, with a folder per species; "" for `text` in the directory.
      size: side of images, in pixels.
      crop: the part of an image to use: ``"none"``, all of it, squeezed into a square; ``"square"``, the largest
        central square; ``"box"``, the smallest square around the bird's bounding box that fits into the image.
      validation_fraction: the share of training images used for validation, with all their captions.
      seed: seed of that choice.
      max_images: number of images per split, evenly spaced so that all species are included; None for all.
    """

    directory: str = ""
    captions: str = ""
    size: int = 64
    crop: str = "none"
    validation_fraction: float = 0.1
    seed: int = 0
    max_images: int | None = None

    def __post_init__(self):
        require(self.size >= 1, "data.cub.size", self.size, "1 pixel or more")
        if self.crop not in CROPS:
            raise unknown("data.cub.crop:", self.crop, CROPS)
        within = 0 < self.validation_fraction < 1
        require(within, "data.cub.validation_fraction", self.validation_fraction, "a value in (0, 1)")
        require(self.seed >= 0, "data.cub.seed", self.seed, "0 or more")
        most = self.max_images
        require(most is None or most >= 1, "data.cub.max_images", most, "1 or more, or None for all")


class _Bird(NamedTuple):
    """An image of the data set.

    Attributes:
      path: path of the image file.
      species: number of the species in the files, from 1.
      captions: captions of the image.
      box: bounding box of the bird in pixels: left, top, width, height; zeros where it is not needed.
    """

    path: pathlib.Path
    species: int
    captions: tuple[str, ...]
    box: tuple[float, float, float, float]


def load_cub(config: CubConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are, and how to crop images.
      cache_dir: unused; the files are read as they are.
      names: names of the modalities; None for both. The choice does not change the rows.

    Raises:
      SbmError: if a file is missing or damaged, or a split has no images.
    """
    del cache_dir
    names = MODALITIES if names is None else tuple(names)
    for name in names:
        if name not in MODALITIES:
            raise unknown("modality of CUB:", name, MODALITIES)
    root = files.directory(config.directory, "the official archive, CUB_200_2011", "data.cub.directory")
    birds, tested = _birds(root, config)
    splits = _split(birds, tested, config)
    known = sorted({bird.species for bird in splits["train"]})
    number_of = {species: number for number, species in enumerate(known)}
    for split, members in splits.items():
        if not members:
            raise SbmError(f"{root} has no image of the {split} split; expected some. Add files.")
        unseen = sorted({bird.species for bird in members} - {*known})
        if unseen:
            raise SbmError(
                f"{root}: the {split} split has images of species {unseen[0]}, but the training split has none. Leave "
                "them out of images.txt, or raise data.cub.max_images."
            )
    settings = {
        "recipe": _RECIPE,
        "digests": {split: _digest(root, members) for split, members in splits.items()},
        "size": config.size,
        "crop": config.crop,
    }
    loaded = {split: _rows(members, config, names, number_of, split) for split, members in splits.items()}
    return types.Dataset(**loaded, num_classes={types.LABEL: len(known)}, settings=settings)


def _birds(root: pathlib.Path, config: CubConfig) -> tuple[list[_Bird], list[bool]]:
    """Return the images that have a file, and whether each is in the test split."""
    named = _table(root / "images.txt", str)
    tables = {
        "train_test_split.txt": _table(root / "train_test_split.txt", _flag),
        "image_class_labels.txt": _table(root / "image_class_labels.txt", int),
        "bounding_boxes.txt": _table(root / "bounding_boxes.txt", _box) if config.crop == "box" else None,
    }
    texts = user_path(config.captions, "data.cub.captions") if config.captions else root / "text"
    birds, tested = [], []
    for number, name in named.items():
        for file, table in tables.items():
            if table is not None and number not in table:
                raise SbmError(f"{root / file} has no line for image {number}, {name}. {_AGAIN}")
        path = root / "images" / name
        if not path.is_file():
            continue
        boxes = tables["bounding_boxes.txt"]
        captions = _captions((texts / name).with_suffix(".txt"))
        box = boxes[number] if boxes else (0.0, 0.0, 0.0, 0.0)
        birds.append(_Bird(path, tables["image_class_labels.txt"][number], captions, box))
        tested.append(not tables["train_test_split.txt"][number])
    if len(birds) < len(named):
        logger.warning("%s: left out %d of %d images, which have no file.", root, len(named) - len(birds), len(named))
    return birds, tested


def _split(birds: Sequence[_Bird], tested: Sequence[bool], config: CubConfig) -> dict[str, list[_Bird]]:
    """Return {split: its images in file order}."""
    rest = [bird for bird, is_test in zip(birds, tested, strict=True) if not is_test]
    number = round(config.validation_fraction * len(rest))
    held_out = {*np.random.default_rng(config.seed).permutation(len(rest))[:number].tolist()}
    splits = {
        "train": [bird for place, bird in enumerate(rest) if place not in held_out],
        "validation": [bird for place, bird in enumerate(rest) if place in held_out],
        "test": [bird for bird, is_test in zip(birds, tested, strict=True) if is_test],
    }
    return {name: _some(members, config.max_images) for name, members in splits.items()}


def _some(birds: Sequence[_Bird], number: int | None) -> list[_Bird]:
    """Return up to `number` evenly spaced images, all if it is None."""
    if number is None or number >= len(birds):
        return list(birds)
    return [birds[place] for place in np.linspace(0, len(birds) - 1, number).astype(int)]


def _digest(root: pathlib.Path, birds: Sequence[_Bird]) -> str:
    """Return a digest of the images' file names and sizes, species, captions and boxes."""
    digest = hashlib.sha256(files.listing_digest(root, [bird.path for bird in birds]).encode())
    for bird in birds:
        digest.update(repr((bird.species, bird.captions, bird.box)).encode())
    return digest.hexdigest()[:16]


def _rows(
    birds: Sequence[_Bird], config: CubConfig, names: Sequence[str], number_of: Mapping[int, int], split: str
) -> types.Split:
    """Return a split with one row per caption."""
    repeats = [len(bird.captions) for bird in birds]
    data: dict[str, Any] = {}
    if "image" in names:
        images = np.zeros((len(birds), config.size, config.size, 3), np.uint8)
        with progress_bar(f"read {split} images", len(birds), "images") as advance:
            for place, bird in enumerate(birds):
                images[place] = _image(bird, config)
                advance(1)
        data["image"] = np.repeat(images, repeats, axis=0)
    if "caption" in names:
        data["caption"] = np.array([caption for bird in birds for caption in bird.captions])
    species = np.repeat(np.array([number_of[bird.species] for bird in birds], np.int32), repeats)
    return types.Split({name: data[name] for name in names}, {types.LABEL: species})


def _image(bird: _Bird, config: CubConfig) -> np.ndarray:
    """Read, crop and resize an image, uint8 [size, size, 3]."""
    pixels, _ = files.rgb_image(bird.path, "Fetch it again.")
    image = Image.fromarray(pixels)
    width, height = image.size
    if config.crop == "square":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    elif config.crop == "box":
        image = image.crop(_square(bird.box, width, height))
    return np.asarray(image.resize((config.size,) * 2, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _square(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the square around a box, moved and shrunk to fit into the image."""
    x, y, box_width, box_height = box
    side = max(1, min(round(max(box_width, box_height)), width, height))
    left = min(max(round(x + box_width / 2 - side / 2), 0), width - side)
    top = min(max(round(y + box_height / 2 - side / 2), 0), height - side)
    return left, top, left + side, top + side


# MARK: Files


def _captions(path: pathlib.Path) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in _lines(path) if line.strip())
    if not lines:
        raise SbmError(f"{path} has no captions; expected one per line. Put them there, or remove the image.")
    return lines


def _table(path: pathlib.Path, convert: Callable[[str], Any]) -> dict[int, Any]:
    """Read a table: {number of an image: its converted value}."""
    found = {}
    for line in _lines(path):
        number, _, value = line.strip().partition(" ")
        if not number:
            continue
        try:
            if not re.fullmatch(r"[0-9]{1,9}", number) or not value or int(number) in found:
                raise ValueError("expected the number of an image, only once, and a value")
            found[int(number)] = convert(value)
        except ValueError as error:
            raise SbmError(f"{path} has the line {line!r:.80}: {error}. {_AGAIN}") from error
    return found


def _flag(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return value == "1"


def _box(value: str) -> tuple[float, ...]:
    box = tuple(float(number) for number in value.split())
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
        raise ValueError("expected x, y, width and height")
    return box


def _lines(path: pathlib.Path) -> Iterable[str]:
    try:
        return path.read_text("utf-8", errors="strict").splitlines()
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected a file of the official archive. Put it there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SbmError(f"{path} cannot be read as text: {error}. {_AGAIN}") from error


DATASET = Loader(CubConfig, load_cub)
