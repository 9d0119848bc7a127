"""MHD: digits as images, sounds and pen trajectories, from its official files."""

import pathlib
from collections.abc import Sequence

import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files, torch_files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown

NUM_CLASSES = 10
_PIECES, _SIDE = 4, 32  # the files split sounds into pieces of 32 bands

_SHAPES = {"image": (1, 28, 28), "trajectory": (200,), "sound": (_PIECES, _SIDE, _SIDE)}
"""The shapes of rows in the files, in the order in which they follow the labels."""


@checked_dataclass
class MhdConfig:
    """Multimodal Handwritten Digits (M. Vasco, H. Yin, F. Melo and A. Paiva, 2022): 50,000 and 10,000 rows.

    | modality     | rows are                                                                                      |
    |--------------|-----------------------------------------------------------------------------------------------|
    | `image`      | float32 [28, 28, 1] in [0, 1]: MNIST images                                                   |
    | `sound`      | float32 [32, 128, 1] in [0, 1]: 32 frames and 128 mel bands of one second at 16 kHz, in       |
    |              | decibels, whose range in the data set is mapped to [0, 1]                                     |
    | `trajectory` | float32 [200] in [0, 1]: 100 points of a pen trajectory                                       |

    Attributes:
      directory: directory of `mhd_train.pt` and `mhd_test.pt`.
      validation_fraction: the share of training rows used for validation.
      seed: seed of that choice of rows.
    """

    directory: str = ""
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self):
        within = 0 < self.validation_fraction < 1
        require(within, "data.mhd.validation_fraction", self.validation_fraction, "a value in (0, 1)")
        require(self.seed >= 0, "data.mhd.seed", self.seed, "0 or more")


def load_mhd(config: MhdConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are.
      cache_dir: unused; the files are read as they are.
      names: names of the modalities; None for all.

    Raises:
      SbmError: if a file is missing, cannot be read or holds something else.
    """
    del cache_dir
    for name in names or ():
        if name not in _SHAPES:
            raise unknown("modality of MHD:", name, _SHAPES)
    root = files.directory(config.directory, "mhd_train.pt and mhd_test.pt", "data.mhd.directory")
    paths = {part: root / f"mhd_{part}.pt" for part in ("train", "test")}
    for path in paths.values():
        if not path.is_file():
            raise SbmError(f"{path} does not exist; expected MHD's official file. Put it there.")
    settings = {
        "digests": {part: torch_files.digest(path) for part, path in paths.items()},
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
    }
    rest, test = (_read(path, tuple(_SHAPES if names is None else names)) for path in paths.values())
    num_validation = round(config.validation_fraction * len(rest))
    if not 0 < num_validation < len(rest):
        raise SbmError(f"{paths['train']} has {len(rest)} rows, too few to split validation off. Fetch it again.")
    order = np.random.default_rng(config.seed).permutation(len(rest))
    train, validation = (rest.take(np.sort(rows)) for rows in (order[num_validation:], order[:num_validation]))
    return types.Dataset(train, validation, test, {types.LABEL: NUM_CLASSES}, settings)


def _read(path: pathlib.Path, names: Sequence[str]) -> types.Split:
    """Read the rows of a file."""
    content = torch_files.read_torch(path)
    if not isinstance(content, (tuple, list)) or len(content) != 6:
        found = f"{type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else repr(content)
        raise SbmError(
            f"{path} holds a {found}; expected six items: labels, images, trajectories, sounds, and the ranges of the "
            "last two. Fetch it again."
        )
    labels = _array(content[0], (), "iu", f"{path}: labels")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise SbmError(f"{path} has no labels, or labels outside 0 to {NUM_CLASSES - 1}. Fetch it again.")
    rows = {}
    for name, values in zip(_SHAPES, content[1:4], strict=True):
        if name in names:
            rows[name] = _array(values, _SHAPES[name], "f", f"{path}: {name}")
            if len(rows[name]) != len(labels):
                raise SbmError(
                    f"{path} has {len(labels)} labels, but {len(rows[name])} rows of {name}. Fetch it again."
                )
    return types.Split({name: _as_shown(name, rows[name]) for name in names}, {types.LABEL: labels.astype(np.int32)})


def _array(values: object, shape: tuple[int, ...], kinds: str, where: str) -> np.ndarray:
    """Return a tensor, or a list of tensors, as an array [N, *shape]."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise SbmError(f"{where} have different shapes ({error}); expected one. Fetch the file again.") from error
    if array.dtype.kind not in kinds or array.shape[1:] != shape or array.ndim == 0:
        raise SbmError(
            f"{where} is {array.dtype} {list(array.shape)}; expected {'integers' if kinds == 'iu' else 'floats'} "
            f"{['N', *shape]}. Fetch the file again."
        )
    return array


def _as_shown(name: str, rows: np.ndarray) -> np.ndarray:
    """Return rows with channels last, and sounds with time first."""
    if name == "sound":
        mel_by_time = rows.reshape(len(rows), _PIECES * _SIDE, _SIDE)
        rows = mel_by_time.transpose(0, 2, 1)[..., None]
    elif name == "image":
        rows = rows.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(rows, dtype=np.float32)


DATASET = Loader(MhdConfig, load_mhd)
