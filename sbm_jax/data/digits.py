"""Sources of handwritten digits, split in three before any rows are made from them."""

import dataclasses
import gzip
import importlib.util
import math
import pathlib
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sbm_jax.data import files
from sbm_jax.errors import SbmError
from sbm_jax.storage import user_path

SIZE = 28  # pixels along a side
NUM_CLASSES = 10

# MARK: Types


class Digits(NamedTuple):
    """Images of digits.

    Attributes:
      images: uint8 [N, 28, 28], white (255) on black (0).
      labels: int32 [N], 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def take(self, rows: slice | np.ndarray) -> "Digits":
        """Return the selected rows."""
        return Digits(self.images[rows], self.labels[rows])


class DigitSplits(NamedTuple):
    """Disjoint splits of digits."""

    train: Digits
    validation: Digits
    test: Digits


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of digits.

    Attributes:
      load: `(directory, seed) -> DigitSplits`.
      digest: `directory -> str`, a digest of the content that `load` would read.
    """

    load: Callable[[str, int], DigitSplits]
    digest: Callable[[str], str]


# MARK: scikit-learn

_SKLEARN_TEST = 300
_SKLEARN_VALIDATION = 97
_SKLEARN_SIDE = 24  # these digits fill their 8x8 frame; on 24 of 28 pixels they have MNIST's margins


def from_sklearn(directory: str, seed: int) -> DigitSplits:
    """Return scikit-learn's 1,797 real 8x8 digits, enlarged to 28x28: 1,400 / 97 / 300, stratified by digit.

    Args:
      directory: unused; the digits come with the package.
      seed: seed of the split.
    """
    del directory
    small, labels = load_digits(return_X_y=True)
    digits = Digits(np.stack([_enlarge(image) for image in small.reshape(-1, 8, 8)]), labels.astype(np.int32))
    rest, test = train_test_split(np.arange(len(labels)), test_size=_SKLEARN_TEST, stratify=labels, random_state=seed)
    train, validation = train_test_split(rest, test_size=_SKLEARN_VALIDATION, stratify=labels[rest], random_state=seed)
    return DigitSplits(digits.take(train), digits.take(validation), digits.take(test))


def _enlarge(small: np.ndarray) -> np.ndarray:
    """Enlarge [8, 8] with values from 0 to 16 to uint8 [28, 28], smoothly, so that strokes keep their slant."""
    image = Image.fromarray((small * (255 / 16)).astype(np.uint8))
    canvas = Image.new("L", (SIZE, SIZE))
    margin = (SIZE - _SKLEARN_SIDE) // 2
    canvas.paste(image.resize((_SKLEARN_SIDE, _SKLEARN_SIDE), Image.Resampling.BICUBIC), (margin, margin))
    return np.asarray(canvas)


# MARK: MNIST files

_MNIST_TRAIN, _MNIST_TEST = 60_000, 10_000
_MNIST_VALIDATION = 10_000
_IDX_UINT8 = 0x08


def from_mnist(directory: str, seed: int) -> DigitSplits:
    """Return MNIST from a directory of its four idx files, gzipped or not: 50,000 / 10,000 / 10,000.

    The first 50,000 digits of the training files form the training split, the rest the validation split.

    Raises:
      SbmError: if the directory or a file is missing, or a file's content does not match its name.
    """
    del seed
    train = _read_mnist(directory, "train", _MNIST_TRAIN)
    test = _read_mnist(directory, "t10k", _MNIST_TEST)
    return _cut(train, test)


def read_idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read the uint8 array of an idx file, gzipped if its name ends in `.gz`.

    The format is two zero bytes, the type (8 is uint8), the number of axes, the size of each axis as a big-endian
    int32, and the values.

    Args:
      path: path of the file.
      shape: expected shape.

    Raises:
      SbmError: if it cannot be read, or holds another type, shape or number of bytes.
    """
    expected = f"an idx file of uint8 {list(shape)}"
    advice = "Fetch the file again."
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise SbmError(f"{path} cannot be read ({error}); expected {expected}. {advice}") from error
    header = bytes([0, 0, _IDX_UINT8, len(shape)]) + np.array(shape, ">i4").tobytes()
    if content[:4] != header[:4]:
        found = content[:4].hex()
        raise SbmError(f"{path} starts with {found}; expected {header[:4].hex()}, {expected}. {advice}")
    if content[: len(header)] != header:
        found = np.frombuffer(content[4 : 4 + (len(content[4 : len(header)]) // 4) * 4], ">i4").tolist()
        raise SbmError(f"{path} declares the shape {found}; expected {expected}. {advice}")
    values = np.frombuffer(content, np.uint8, offset=len(header))
    if len(values) != math.prod(shape):
        raise SbmError(
            f"{path} holds {len(values):,} values; expected {math.prod(shape):,}, {expected}: it is "
            f"truncated or too long. {advice}"
        )
    return values.reshape(shape)


def _read_mnist(directory: str, part: str, num_rows: int) -> Digits:
    images = read_idx(_mnist_file(directory, f"{part}-images", "idx3"), (num_rows, SIZE, SIZE))
    path = _mnist_file(directory, f"{part}-labels", "idx1")
    labels = read_idx(path, (num_rows,)).astype(np.int32)
    if labels.max() >= NUM_CLASSES:
        raise SbmError(f"{path} has the label {labels.max()}; expected 0 to 9. Fetch the file again.")
    return Digits(images, labels)


def _mnist_file(directory: str, stem: str, idx: str) -> pathlib.Path:
    root = files.directory(directory, "the four MNIST files", "digits_directory")
    names = [f"{stem}{mark}{idx}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise SbmError(f"{root} has no file {names[0]}; expected that name or one of {names[1:]}. Put MNIST's file there.")


def _digest_mnist(directory: str) -> str:
    stems = [
        (f"{part}-{content}", idx)
        for part in ("train", "t10k")
        for content, idx in (("images", "idx3"), ("labels", "idx1"))
    ]
    return files.content_digest([_mnist_file(directory, *stem) for stem in stems])


def _cut(train: Digits, test: Digits) -> DigitSplits:
    first = len(train.labels) - _MNIST_VALIDATION
    return DigitSplits(train.take(slice(0, first)), train.take(slice(first, None)), test)


# MARK: tensorflow-datasets

_INSTEAD = (
    "Or set digits='mnist' and digits_directory to a directory of the four MNIST files, which needs neither TensorFlow "
    "nor a download."
)
_REACH_SECONDS = 10


def from_tfds(directory: str, seed: int) -> DigitSplits:
    """Return `mnist` of tensorflow-datasets, downloaded if necessary: 50,000 / 10,000 / 10,000.

    Args:
      directory: data directory of tensorflow-datasets; "" for its default.
      seed: unused.

    Raises:
      SbmError: if TensorFlow is not installed, or the data are not prepared and cannot be downloaded.
    """
    del seed
    if importlib.util.find_spec("tensorflow") is None:
        raise SbmError(
            "digits='tfds' needs TensorFlow to read MNIST, but it is not installed. "
            f"Install the [tensorboard] extra. {_INSTEAD}"
        )
    builder = tfds.builder("mnist", data_dir=str(user_path(directory, "digits_directory")) if directory else None)
    if not builder.is_prepared():
        _prepare(builder)
    train, test = (_as_digits(builder, split) for split in ("train", "test"))
    return _cut(train, test)


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    where = f"the data set mnist is not prepared under {builder.data_path}"
    # Check the server first: the library retries for minutes before it gives up.
    try:
        with urllib.request.urlopen(
            urllib.request.Request(urllib.parse.urljoin(builder.URL, "t10k-labels-idx1-ubyte.gz"), method="HEAD"),
            timeout=_REACH_SECONDS,
        ):
            pass
    except OSError as error:
        raise SbmError(
            f"{where}, and cannot be downloaded from {builder.URL}: {error}. Connect to the network, or set "
            f"digits_directory to where it is prepared. {_INSTEAD}"
        ) from error
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except (OSError, tfds.download.DownloadError, tfds.download.NonMatchingChecksumError) as error:
        raise SbmError(f"{where}, and its download failed: {error}. Try again. {_INSTEAD}") from error


def _as_digits(builder: tfds.core.DatasetBuilder, split: str) -> Digits:
    rows = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
    return Digits(rows["image"][..., 0], rows["label"].astype(np.int32))


# MARK: The sources

SOURCES: dict[str, Source] = {
    "sklearn": Source(from_sklearn, lambda _: "scikit-learn"),
    "mnist": Source(from_mnist, _digest_mnist),
    "tfds": Source(from_tfds, lambda _: "mnist:3"),
}
