"""PolyMNIST-style data: digits over the backgrounds of several modalities, which share only the label.

Every modality of a tuple shows another image of the same digit, on that modality's background (`polymnist_tuples`).
The data sets use a tensorflow-datasets builder that needs no TensorFlow; the official archive is read into it too.

Reference: Sutter, Daunhawer, Vogt: Generalized Multimodal ELBO. ICLR 2021. https://arxiv.org/abs/2105.02470
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TextIO

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import backgrounds, digits, files
from sbm_jax.data.loader import Loader
from sbm_jax.data.polymnist_tuples import Row, modality_names, tuples
from sbm_jax.errors import SbmError, unknown
from sbm_jax.progress import progress_bar

_RECIPE = 1  # increment when the same options give other images, so that old folders are not read
_SPLITS = ("train", "validation", "test")


class Stream(NamedTuple):
    """The rows of a split, made one by one.

    Attributes:
      num: number of rows.
      iterator: iterator over the rows.
    """

    num: int
    iterator: Iterator[Row]


# MARK: Options


@checked_dataclass
class PolyMnistConfig:
    """A PolyMNIST-style data set.

    Attributes:
      digits: source of digits, a key of `digits.SOURCES`: ``"sklearn"``, ``"mnist"``, ``"tfds"``.
      digits_directory: directory of the four MNIST files, or of tensorflow-datasets.
      backgrounds: source of backgrounds, a key of `backgrounds.SOURCES`: ``"textures"``, ``"directory"``.
      backgrounds_directory: directory of background images; the first `num_modalities` by name are used.
      num_modalities: M; modalities are named m0, m1, ... Modality k does not depend on M.
      seed: seed of the split of scikit-learn's digits, the textures, the pairing and the crops.
      rounds: how many times the training digits are paired, each time anew and with new crops.
      test_rounds: likewise for the test digits.
      augment: strength of random shifts (±2 pixels), rotations (±12°) and scalings (±10 %) of training digits; 1 for
        these ranges, 0 for none, as in the paper.
      max_train: number of training digits to use, or of tuples of an archive; None for all.
      max_test: likewise for validation and for test.
      archive: directory of the official archive (with `train/m0/0.5.png`, ...). If set, the archive is read, and of
        the options above only `num_modalities`, `max_train` and `max_test` have an effect.
    """

    digits: str = "sklearn"
    digits_directory: str = ""
    backgrounds: str = "textures"
    backgrounds_directory: str = ""
    num_modalities: int = 5
    seed: int = 0
    rounds: int = 1
    test_rounds: int = 1
    augment: float = 0.0
    max_train: int | None = None
    max_test: int | None = None
    archive: str = ""


def _validate(config: PolyMnistConfig) -> None:
    for name in ("num_modalities", "rounds", "test_rounds", "max_train", "max_test"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise SbmError(f"data.polymnist.{name} is {value}; expected at least 1.")
    if config.seed < 0:
        raise SbmError(f"data.polymnist.seed is {config.seed}; expected 0 or more.")
    if not 0 <= config.augment <= 2:
        raise SbmError(f"data.polymnist.augment is {config.augment}; expected 0 (none) to 2; 1 is usual.")
    if not config.archive and config.digits not in digits.SOURCES:
        raise unknown("source of digits", config.digits, digits.SOURCES)
    if not config.archive and config.backgrounds not in backgrounds.SOURCES:
        raise unknown("source of backgrounds", config.backgrounds, backgrounds.SOURCES)


# MARK: Loading


def load_polymnist(
    config: PolyMnistConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None
) -> types.Dataset:
    """Load the data set, from `cache_dir` if it was prepared there before.

    Args:
      config: options of the data set.
      cache_dir: directory of prepared data sets, with a folder per recipe.
      names: unused; all modalities, m0, m1, ..., are loaded.

    Raises:
      SbmError: if options are out of range, sources are missing or unreadable, or `cache_dir` cannot be written.
    """
    del names
    _validate(config)
    settings = _archive_settings(config) if config.archive else _drawn_settings(config)
    rows_fn = _archive_rows if config.archive else _drawn_rows
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    builder_config = PolyMnistBuilderConfig(
        name=f"{config.num_modalities}_modalities_{fingerprint}",
        description="PolyMNIST-style tuples: digits over backgrounds, which share only the label.",
        num_modalities=config.num_modalities,
        rows_fn=lambda: rows_fn(config),
        terminal=sys.stdout,
    )
    builder = _prepare(builder_config, cache_dir)
    splits = {name: _read_split(builder, name, config.num_modalities) for name in _SPLITS}
    return types.Dataset(**splits, num_classes={"label": digits.NUM_CLASSES}, settings=settings)


def _prepare(builder_config: "PolyMnistBuilderConfig", cache_dir: pathlib.Path) -> "PolyMnist":
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        builder = PolyMnist(config=builder_config, data_dir=str(cache_dir), file_format="array_record")
    except OSError as error:
        raise _unwritable(cache_dir, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, json_format.Error) as error:
        folder = cache_dir / "poly_mnist" / builder_config.name
        raise _damaged(folder, error) from error
    try:
        with _quiet():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except OSError as error:
        if not builder.is_prepared():  # otherwise another process was faster
            raise _unwritable(cache_dir, error) from error
    return builder


def _damaged(folder: os.PathLike, error: Exception) -> SbmError:
    return SbmError(
        f"the prepared data set in {folder} is damaged: {error}. Remove that folder; it will be made again."
    )


def _unwritable(cache_dir: pathlib.Path, error: OSError) -> SbmError:
    return SbmError(
        f"the data set cannot be written under {cache_dir}: {error}. Free space there, fix its permissions, "
        "or name another directory."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library, which reports downloads that it does not make and progress without a time left."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _read_split(builder: "PolyMnist", split: str, num_modalities: int) -> types.Split:
    source = builder.as_data_source(split)
    shape = (len(source), digits.SIZE, digits.SIZE, 3)
    data = {name: np.empty(shape, np.uint8) for name in modality_names(num_modalities)}
    labels = np.empty(len(source), np.int32)
    try:
        for index, row in enumerate(source):
            labels[index] = row["label"]
            for name, images in data.items():
                images[index] = row[name]
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise _damaged(builder.data_path, error) from error
    return types.Split(data, {"label": labels})


# MARK: The builder


@dataclasses.dataclass(eq=False, repr=False)
class PolyMnistBuilderConfig(tfds.core.BuilderConfig):
    """One recipe of the data set; its name contains the recipe's fingerprint.

    Attributes:
      num_modalities: M.
      rows_fn: `() -> {split: rows}`; called only if the data set must be made.
      terminal: stream that shows progress.
    """

    num_modalities: int = 0
    rows_fn: Callable[[], Mapping[str, Stream]] = dict
    terminal: TextIO = sys.stdout

    def __repr__(self) -> str:
        return self.name


class PolyMnist(tfds.core.GeneratorBasedBuilder):
    """Tuples of images that all show the same digit, one tuple per record."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        # Raw bytes: the default writes each pixel as a 64-bit integer and takes eight times longer.
        image = tfds.features.Tensor(
            shape=(digits.SIZE, digits.SIZE, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        features = dict.fromkeys(modality_names(self.builder_config.num_modalities), image)
        features["label"] = tfds.features.ClassLabel(num_classes=digits.NUM_CLASSES)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.builder_config.description,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # keep rows in the order in which they are made
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Row]]]:
        del dl_manager
        return {split: self._generate_examples(split, rows) for split, rows in self.builder_config.rows_fn().items()}

    def _generate_examples(self, split: str, rows: Stream) -> Iterator[tuple[int, Row]]:
        with (
            contextlib.redirect_stdout(self.builder_config.terminal),
            progress_bar(f"prepare {split} data", rows.num, "tuples") as advance,
        ):
            for example in enumerate(rows.iterator):
                yield example
                advance(1)


# MARK: Drawn tuples


def _drawn_settings(config: PolyMnistConfig) -> dict[str, Any]:
    options = dataclasses.asdict(config)
    for name in ("digits_directory", "backgrounds_directory", "archive"):
        del options[name]
    return {
        "recipe": _RECIPE,
        "digits_digest": digits.SOURCES[config.digits].digest(config.digits_directory),
        "backgrounds_digest": backgrounds.SOURCES[config.backgrounds].digest(
            config.backgrounds_directory, config.num_modalities
        ),
        **options,
    }


def _drawn_rows(config: PolyMnistConfig) -> dict[str, Stream]:
    parts = digits.SOURCES[config.digits].load(config.digits_directory, config.seed)
    images = backgrounds.SOURCES[config.backgrounds].load(
        config.backgrounds_directory, config.num_modalities, config.seed
    )
    train, validation, test = (
        part.take(slice(limit))
        for part, limit in zip(parts, (config.max_train, config.max_test, config.max_test), strict=True)
    )
    return {
        "train": _paired(train, images, (config.seed, 0), config.rounds, config.augment),
        "validation": _paired(validation, images, (config.seed, 1), 1, 0.0),
        "test": _paired(test, images, (config.seed, 2), config.test_rounds, 0.0),
    }


def _paired(
    part: digits.Digits, images: Sequence[np.ndarray], seed: tuple[int, int], rounds: int, augment: float
) -> Stream:
    turns = (tuples(part, images, (*seed, turn), augment) for turn in range(rounds))
    return Stream(rounds * len(part.labels), itertools.chain.from_iterable(turns))


# MARK: The official archive

_ARCHIVE_NAME = re.compile(r"(\d+)\.(\d)\.png")
_VALIDATION_SHARE = 6  # one in six: 10,000 of the 60,000


def _archive_settings(config: PolyMnistConfig) -> dict[str, Any]:
    root, names = _archive_names(config)
    listed = (
        root / part / name / file
        for part in names
        for name in modality_names(config.num_modalities)
        for file in names[part]
    )
    return {
        "recipe": _RECIPE,
        "archive": True,
        "archive_digest": files.listing_digest(root, listed),
        **{name: getattr(config, name) for name in ("num_modalities", "max_train", "max_test")},
    }


def _archive_rows(config: PolyMnistConfig) -> dict[str, Stream]:
    root, names = _archive_names(config)
    first = len(names["train"]) - len(names["train"]) // _VALIDATION_SHARE
    chosen = {
        "train": ("train", names["train"][:first][: config.max_train]),
        "validation": ("train", names["train"][first:][: config.max_test]),
        "test": ("test", names["test"][: config.max_test]),
    }
    modalities = modality_names(config.num_modalities)
    return {
        split: Stream(len(rows), _archive_tuples(root / part, modalities, rows))
        for split, (part, rows) in chosen.items()
    }


def _archive_names(config: PolyMnistConfig) -> tuple[pathlib.Path, dict[str, list[str]]]:
    """Return the archive's directory, and the file names of its two parts, in numeric order."""
    root = files.directory(config.archive, "the PolyMNIST archive", "archive")
    root = root / "MMNIST" if (root / "MMNIST").is_dir() else root
    return root, {part: _paired_names(root / part, config.num_modalities) for part in ("train", "test")}


def _paired_names(part: pathlib.Path, num_modalities: int) -> list[str]:
    listed = {}
    for name in modality_names(num_modalities):
        if not (part / name).is_dir():
            raise SbmError(
                f"{part / name} is not a directory; expected the archive's images of modality {name}, such as "
                f"{part.name}/{name}/0.5.png. Fix data.polymnist.archive or lower num_modalities."
            )
        listed[name] = {file.name for file in files.listing(part / name, (".png",))}
    expected = listed["m0"]
    for name, found in listed.items():
        if found != expected:
            example = sorted(found ^ expected)[0]
            raise SbmError(
                f"{part / name} and {part / 'm0'} differ, for example in {example!r}; images are paired by file name, "
                "so both must have the same names. Unpack the archive again."
            )
    wrong = sorted(name for name in expected if not _ARCHIVE_NAME.fullmatch(name))
    if wrong or len(expected) < _VALIDATION_SHARE:
        found = f"the file {wrong[0]!r}" if wrong else f"{len(expected)} files"
        raise SbmError(
            f"{part / 'm0'} has {found}; expected at least {_VALIDATION_SHARE} files named index.digit.png, such as "
            "0.5.png. Unpack the archive again."
        )
    return sorted(expected, key=lambda name: int(name.split(".")[0]))


def _archive_tuples(part: pathlib.Path, modalities: Sequence[str], names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        images = {modality: _archive_image(part / modality / name) for modality in modalities}
        yield {"label": int(name.split(".")[1]), **images}


def _archive_image(path: pathlib.Path) -> np.ndarray:
    pixels, mode = files.rgb_image(path, "Unpack the archive again.")
    found, expected = f"{mode} {pixels.shape[1]}x{pixels.shape[0]}", f"RGB {digits.SIZE}x{digits.SIZE}"
    if found != expected:
        raise SbmError(f"{path} is {found}; expected {expected}. Unpack the archive again.")
    return pixels


DATASET = Loader(PolyMnistConfig, load_polymnist)
