"""Digits as real images, recordings, pen strokes and tags, paired by digit."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import digits, files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.rows import Repeated
from sbm_jax.storage import DAMAGED_ARCHIVE

_RECIPE = 1  # increment when the same options give other rows
_SPLITS = ("train", "validation", "test")

# MARK: Options


@checked_dataclass
class PairedDigitsConfig:
    """Rows whose modalities all show the same digit.

    | modality  | from                                  | rows are                                                     |
    |-----------|---------------------------------------|--------------------------------------------------------------|
    | `image`   | `mnist/`: its four files              | uint8 [28, 28, 1]                                            |
    | `sound`   | `spoken_digits/fsdd_8khz_int16.npz`   | int16 [8000]: waveforms of one second, for the format        |
    |           |                                       | `spectrogram`                                                |
    | `strokes` | `pendigits/pendigits.tra`             | float32 [16]: eight points of the pen, x and y from 0 to 100 |
    | `tags`    | the digit                             | float32 [10], one-hot                                        |

    Images, recordings and strokes are split before they are paired, so that no part of a test row is ever trained on.
    Test rows use MNIST's test images, recordings with index 0 to 4 (the data set's official split) and a tenth of the
    strokes; validation rows use MNIST's last 10,000 training images, recordings with index 5 to 9, and another tenth of
    the strokes.

    The level of a recording depends on its microphone, so each is scaled to a peak of 1. Shorter recordings are padded
    with silence. Longer ones (20 of 3,000) are cut to the second with the most energy, which has at least 99.2 % of it.

    Attributes:
      directory: directory of `mnist`, `spoken_digits` and `pendigits`; only those of the chosen modalities are read.
      num_train: number of training rows. In every split, all digits are equally frequent, and so are the images,
        recordings and strokes of each digit.
      num_validation: number of validation rows.
      num_test: number of test rows.
      seed: seed of the pairing and of the split of the strokes.
    """

    directory: str = ""
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 2_000
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, "data.digits.seed", self.seed, "0 or more")
        for name in ("num_train", "num_validation", "num_test"):
            value = getattr(self, name)
            require(value >= digits.NUM_CLASSES, f"data.digits.{name}", value, "10 or more, one for each digit")


# MARK: Loading


def load_paired_digits(
    config: PairedDigitsConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None
) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are, and how many rows to make.
      cache_dir: unused; the files are read as they are.
      names: names of the modalities; None for all.

    Raises:
      SbmError: if a file is missing or damaged, or a split lacks a digit.
    """
    del cache_dir
    for name in names or ():
        if name not in SOURCES:
            raise unknown("modality of the digits:", name, SOURCES)
    told = "mnist, spoken_digits and pendigits"
    root = files.directory(config.directory, told, "data.digits.directory")
    chosen = tuple(SOURCES if names is None else names)
    found = {name: SOURCES[name](root, config.seed) for name in chosen}
    counts = dict(zip(_SPLITS, (config.num_train, config.num_validation, config.num_test), strict=True))
    splits = {name: _paired(name, num, found, config.seed) for name, num in counts.items()}
    settings = {"recipe": _RECIPE, "seed": config.seed, **{f"num_{name}": num for name, num in counts.items()}}
    settings["digests"] = {name: items.digest for name, items in found.items()}
    return types.Dataset(**splits, num_classes={types.LABEL: digits.NUM_CLASSES}, settings=settings)


class Items(NamedTuple):
    """The items from which rows of a modality are made.

    Attributes:
      values: the items, [K, ...].
      labels: digit of each item, int [K].
      split: index in `_SPLITS` of each item's split, int [K]; None if every split uses all items.
      digest: digest of the content of their files.
      where: source of the items, for messages.
    """

    values: np.ndarray
    labels: np.ndarray
    split: np.ndarray | None
    digest: str
    where: str


def _paired(split: str, num_rows: int, found: Mapping[str, Items], seed: int) -> types.Split:
    """Return rows whose modalities all show the same digit.

    Each modality has its own random stream, so that it does not depend on the other modalities.
    """
    number = _SPLITS.index(split)
    labels = np.random.default_rng([seed, number]).permutation(np.arange(num_rows) % digits.NUM_CLASSES)
    data = {}
    for name, items in found.items():
        stream = np.random.default_rng([seed, number, list(SOURCES).index(name)])
        indices = np.empty(num_rows, int)
        for label in range(digits.NUM_CLASSES):
            mine = items.labels == label
            there = np.flatnonzero(mine if items.split is None else mine & (items.split == number))
            if not len(there):
                raise SbmError(
                    f"{items.where} has no {label} for the {split} split; expected every digit in each. Fetch it again."
                )
            rows = np.flatnonzero(labels == label)
            rounds = -(-len(rows) // len(there))
            indices[rows] = np.concatenate([stream.permutation(there) for _ in range(rounds)])[: len(rows)]
        used, again = np.unique(indices, return_inverse=True)
        data[name] = Repeated(items.values[used], again)
    return types.Split(data, {types.LABEL: labels.astype(np.int32)})


# MARK: Images and tags


def _images(root: pathlib.Path, seed: int) -> Items:
    where = root / "mnist"
    if not where.is_dir():
        raise SbmError(f"{where} is not a directory; expected MNIST's four files there. Put them there.")
    parts = digits.from_mnist(str(where), seed)
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    split = np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts])
    return Items(images[..., None], labels, split, digits.SOURCES["mnist"].digest(str(where)), str(where))


def _tags(root: pathlib.Path, seed: int) -> Items:
    del root, seed
    return Items(np.eye(digits.NUM_CLASSES, dtype=np.float32), np.arange(digits.NUM_CLASSES), None, "one-hot", "tags")


# MARK: Recordings

LENGTH = 8000
"""Samples of a recording: one second."""

_PER_SPLIT = 5  # held-out recordings per digit and speaker: index 0 to 4 for test, 5 to 9 for validation
_ARRAYS = {"samples": "int16 [S], all recordings end to end", "length": "[K]", "label": "[K]", "index": "[K]"}


def _recordings(root: pathlib.Path, seed: int) -> Items:
    del seed
    path = root / "spoken_digits" / "fsdd_8khz_int16.npz"
    digest = files.content_digest([path])
    arrays = _read_recordings(path)
    ends = np.cumsum(arrays["length"])
    waves = np.zeros((len(ends), LENGTH), np.int16)
    for row, (end, length) in enumerate(zip(ends, arrays["length"], strict=True)):
        wave = as_second(arrays["samples"][end - length : end])
        waves[row, : len(wave)] = wave
    index = arrays["index"]
    split = np.where(index < _PER_SPLIT, 2, np.where(index < 2 * _PER_SPLIT, 1, 0))
    return Items(waves, arrays["label"], split, digest, str(path))


def as_second(wave: np.ndarray) -> np.ndarray:
    """Scale a recording, int16 [L], to a peak of 1 (32,767), and cut it to the second with the most energy."""
    wave = wave.astype(np.float64)
    if len(wave) > LENGTH:
        energy = np.concatenate([[0], np.cumsum(wave**2)])
        first = np.argmax(energy[LENGTH:] - energy[:-LENGTH])
        wave = wave[first : first + LENGTH]
    peak = np.abs(wave).max(initial=0.0)
    return np.round(wave * ((2**15 - 1) / peak if peak else 0)).astype(np.int16)


def _read_recordings(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read and check the arrays of the file of recordings."""
    advice = "Fetch the file again."
    try:
        with np.load(path, allow_pickle=False) as archive:
            lacking = [name for name in _ARRAYS if name not in archive.files]
            if lacking:
                raise SbmError(f"{path} has no array {lacking[0]!r}; expected {_ARRAYS}. {advice}")
            arrays = {name: archive[name] for name in _ARRAYS}
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"{path} cannot be read: {error}. Expected an archive of {_ARRAYS}. {advice}") from error
    samples, *counts = arrays.values()
    shapes = {array.shape for array in counts}
    integers = samples.dtype == np.int16 and all(array.dtype.kind in "ui" for array in counts)
    if not integers or samples.ndim != 1 or len(shapes) > 1 or counts[0].ndim != 1:
        seen = {name: f"{array.dtype} {list(array.shape)}" for name, array in arrays.items()}
        raise SbmError(f"{path} has {seen}; expected integers, {_ARRAYS}. {advice}")
    arrays = {name: array if name == "samples" else array.astype(np.int64) for name, array in arrays.items()}
    length, label = arrays["length"], arrays["label"]
    if length.min(initial=1) < 1 or length.sum() != len(samples):
        raise SbmError(f"{path} has {len(samples):,} samples; the lengths sum to {length.sum():,}. {advice}")
    if label.min(initial=0) < 0 or label.max(initial=0) >= digits.NUM_CLASSES:
        raise SbmError(f"{path} has labels from {label.min()} to {label.max()}; expected 0 to 9. {advice}")
    return arrays


# MARK: Strokes

_NUMBERS = 17  # per line: eight points and the digit
_HIGHEST = 100


def _strokes(root: pathlib.Path, seed: int) -> Items:
    path = root / "pendigits" / "pendigits.tra"
    expected = f"lines of {_NUMBERS} integers, 16 from 0 to {_HIGHEST} and the digit, separated by commas"
    digest = files.content_digest([path])
    try:
        lines = path.read_text("utf-8").splitlines()
        table = np.array([[int(number) for number in line.split(",")] for line in lines if line.strip()])
    except ValueError as error:
        raise SbmError(f"{path} cannot be read: {error}. Expected {expected}. Fetch the file again.") from error
    if table.ndim != 2 or table.shape[1] != _NUMBERS:
        raise SbmError(f"{path} has an array {list(table.shape)}; expected {expected}. Fetch the file again.")
    points, labels = table[:, :-1], table[:, -1]
    if points.min() < 0 or points.max() > _HIGHEST or labels.min() < 0 or labels.max() >= digits.NUM_CLASSES:
        raise SbmError(
            f"{path} has points from {points.min()} to {points.max()} and digits from {labels.min()} to "
            f"{labels.max()}; expected {expected}. Fetch the file again."
        )
    split = np.zeros(len(labels), int)
    for label in range(digits.NUM_CLASSES):
        rows = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        tenth = -(-len(rows) // 10)
        split[rows[:tenth]], split[rows[tenth : 2 * tenth]] = 2, 1
    return Items(points.astype(np.float32), labels, split, digest, str(path))


SOURCES: dict[str, Callable[[pathlib.Path, int], Items]] = {
    "image": _images,
    "sound": _recordings,
    "tags": _tags,
    "strokes": _strokes,
}
"""The reader of each modality: `(directory, seed) -> items`."""

DATASET = Loader(PairedDigitsConfig, load_paired_digits)
