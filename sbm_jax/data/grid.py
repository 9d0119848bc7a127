"""GRID: video, sound and words of spoken sentences, from three files.

Reference: M. Cooke, J. Barker, S. Cunningham and X. Shao, "An audio-visual corpus for speech perception and automatic
speech recognition", 2006. https://doi.org/10.1121/1.2229005
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.storage import DAMAGED_ARCHIVE

MODALITIES = ("video", "sound", "words")

WORDS = {
    "command": ("bin", "lay", "place", "set"),
    "colour": ("blue", "green", "red", "white"),
    "preposition": ("at", "by", "in", "with"),
    "letter": tuple("abcdefghijklmnopqrstuvxyz"),  # without w, which has three syllables
    "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "adverb": ("again", "now", "please", "soon"),
}
"""The grammar of the corpus: the choices for each of a sentence's six words, which are the questions of the labels."""

_SILENCE = ("sil", "sp")
_RECIPE = 1  # increment when the same files give other rows
_VIDEO, _SOUND, _ALIGNMENTS = "video_64_grey_12.5fps.npz", "audio_8khz_mulaw.npz", "alignments.json"
_AGAIN = "Make the files again."
_FRAMES, _SIDE, _SAMPLES = 38, 64, 24_000


@checked_dataclass
class GridConfig:
    """Sentences of six words such as "bin blue at f two now", three seconds each.

    | modality | from                        | rows are                                                                |
    |----------|-----------------------------|-------------------------------------------------------------------------|
    | `video`  | `video_64_grey_12.5fps.npz` | uint8 [38, 64, 64, 1]: 12.5 grey frames per second                      |
    | `sound`  | `audio_8khz_mulaw.npz`      | float32 [24000] in [-1, 1]: 8,000 samples per second                    |
    | `words`  | `alignments.json`           | strings of six words; labels answer the questions of `WORDS`            |

    The archives hold arrays for all clips, in the order of their ``names``: ``jpeg``, the concatenated JPEG files, one
    per clip with its frames from top to bottom, and ``offsets`` [N + 1], where each file begins and ends; ``mulaw``,
    uint8 [N, 24000], companded with μ = 255. The alignments hold ``names`` and, for each clip, a list of
    [start, end, word] in units of 1 / 25,000 s.

    A clip is in the test split if the first eight hexadecimal digits of its name's SHA-1 are 0 modulo 10, and in the
    validation split if they are 1.

    Attributes:
      directory: directory of the three files.
      max_train: number of training rows to use, the first by name; None for all.
      max_test: likewise for validation and for test.
    """

    directory: str = ""
    max_train: int | None = None
    max_test: int | None = None

    def __post_init__(self):
        for name in ("max_train", "max_test"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"data.grid.{name}", value, "1 or more, or None for all")


def load_grid(config: GridConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are, and which rows to use.
      cache_dir: unused; the files are read as they are.
      names: names of the modalities; None for all. Files of other modalities are not read.

    Raises:
      SbmError: if a file is missing or damaged, the files hold different clips, or a split has no rows.
    """
    del cache_dir
    names = MODALITIES if names is None else tuple(names)
    for name in names:
        if name not in MODALITIES:
            raise unknown("modality of GRID:", name, MODALITIES)
    root = files.directory(config.directory, f"{_VIDEO}, {_SOUND} and {_ALIGNMENTS}", "data.grid.directory")
    clips, sentences = _sentences(root / _ALIGNMENTS)
    paths = {"video": root / _VIDEO, "sound": root / _SOUND}
    archives = {name: _archive(path, clips) for name, path in paths.items() if name in names}
    splits = {}
    for split, rows in _rows(clips, config).items():
        if not len(rows):
            raise SbmError(f"{root} has no clip of the {split} split; expected some. Add clips.")
        own = [sentences[row] for row in rows]
        data = {}
        for name in names:
            if name == "words":
                data[name] = np.array([" ".join(words) for words in own])
            elif name == "sound":
                data[name] = _waveforms(archives[name]["mulaw"][rows])
            else:
                data[name] = np.stack([_frames(paths[name], archives[name], row) for row in rows])
        labels = {
            question: np.array([known.index(words[place]) for words in own], np.int32)
            for place, (question, known) in enumerate(WORDS.items())
        }
        splits[split] = types.Split(data, labels)
    digests = {
        path.name: files.content_digest([path]) for path in (root / _ALIGNMENTS, *paths.values()) if path.is_file()
    }
    settings = {"recipe": _RECIPE, "digests": digests, "max_train": config.max_train, "max_test": config.max_test}
    return types.Dataset(**splits, num_classes={name: len(known) for name, known in WORDS.items()}, settings=settings)


def _rows(clips: Sequence[str], config: GridConfig) -> dict[str, np.ndarray]:
    """Return {split: indices of its clips, int [N]}, sorted by name."""
    places = np.array([int(hashlib.sha1(name.encode()).hexdigest()[:8], 16) % 10 for name in clips])
    order = np.argsort(np.array(clips), kind="stable")
    chosen = {"train": places > 1, "validation": places == 1, "test": places == 0}
    most = {"train": config.max_train, "validation": config.max_test, "test": config.max_test}
    return {split: order[held[order]][: most[split]] for split, held in chosen.items()}


# MARK: Files


def _sentences(path: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """Read the names of all clips, and their words."""
    try:
        content = json.loads(path.read_text("utf-8"))
        clips, alignments = [str(name) for name in content["names"]], content["alignments"]
        spoken = [[str(word) for _, _, word in alignment if word not in _SILENCE] for alignment in alignments]
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected the words of all clips. Put it there.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SbmError(f"{path} does not hold names and alignments: {error!r}. {_AGAIN}") from error
    if len(clips) != len(spoken) or len({*clips}) != len(clips) or not clips:
        raise SbmError(
            f"{path} has {len(clips)} names and {len(spoken)} alignments; expected one of each per clip. {_AGAIN}"
        )
    for name, words in zip(clips, spoken, strict=True):
        known = len(words) == len(WORDS) and all(w in k for w, k in zip(words, WORDS.values(), strict=True))
        if not known:
            raise SbmError(
                f"{path}: clip {name!r} has the words {' '.join(words)!r}, not a sentence of the corpus. {_AGAIN}"
            )
    return clips, spoken


def _archive(path: pathlib.Path, clips: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of an archive, and check that it holds the given clips."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        names = found["names"].tolist()
        whole = (
            found["mulaw"].shape == (len(names), _SAMPLES)
            if "mulaw" in found
            else (found["offsets"].shape == (len(names) + 1,) and found["jpeg"].ndim == 1)
        )
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected the data of all clips. Put it there.") from error
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"{path} cannot be read: {error!r}. {_AGAIN}") from error
    if names != list(clips):
        raise SbmError(f"{path} has other clips than {_ALIGNMENTS}, or has them in another order. {_AGAIN}")
    if not whole or found.get("mulaw", found.get("jpeg")).dtype != np.uint8:
        raise SbmError(f"{path} has arrays of other shapes or types than GridConfig describes. {_AGAIN}")
    return found


def _waveforms(companded: np.ndarray) -> np.ndarray:
    """Expand μ-law bytes (μ = 255) to waveforms, float32 in [-1, 1]."""
    y = companded.astype(np.float32) / 127.5 - 1.0
    return (np.sign(y) * np.expm1(np.abs(y) * np.log(256.0)) / 255.0).astype(np.float32)


def _frames(path: pathlib.Path, archive: dict[str, np.ndarray], row: int) -> np.ndarray:
    """Return the frames of a clip, uint8 [38, 64, 64, 1]."""
    start, end = (int(archive["offsets"][row + i]) for i in (0, 1))
    where = path / f"{archive['names'][row]}.jpg"
    content = archive["jpeg"][start:end].tobytes()
    pixels, _ = files.rgb_image(where, _AGAIN, content)
    if pixels.shape[:2] != (_FRAMES * _SIDE, _SIDE):
        raise SbmError(f"{where} is {pixels.shape[1]}x{pixels.shape[0]}; expected {_SIDE}x{_FRAMES * _SIDE}. {_AGAIN}")
    return pixels[:, :, :1].reshape(_FRAMES, _SIDE, _SIDE, 1)


DATASET = Loader(GridConfig, load_grid)
