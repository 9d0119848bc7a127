"""Video files: clips of frames and sound from a directory of video files, decoded by PyAV."""

import dataclasses
import hashlib
import logging
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown

logger = logging.getLogger(__name__)

MODALITIES = ("video", "sound")
ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts")

_RECIPE = 1  # increment when the same files give other rows
_SHOWN = 5  # names in a message


@checked_dataclass
class VideoFilesConfig:
    """Clips of the video files in a directory and its subdirectories, with a suffix of `ENDINGS`.

    | modality | rows are                                                                        |
    |----------|---------------------------------------------------------------------------------|
    | `video`  | uint8 [T, size, size, 3]: the central square of each frame, resized             |
    | `sound`  | float32 [N]: the mean of all channels, resampled, and clipped to [-1, 1]        |

    A file is cut into consecutive clips; the remainder is not used. All clips of a file are in the same split, chosen
    by a hash of its name. Files that cannot be decoded, are shorter than a clip, or lack frames or sound are left out;
    a warning names and counts them. All clips are kept in memory.

    Attributes:
      directory: directory of the files.
      seconds: length of a clip in seconds.
      frame_rate: frames per second; T = seconds * frame_rate must be an integer.
      size: side of the frames, in pixels.
      sound_rate: sampling rate in Hz; N = seconds * sound_rate must be an integer.
      most_clips: maximum number of clips per file, from its start; None for all.
      validation_fraction: the share of files used for validation.
      test_fraction: the share of files used for testing.
    """

    directory: str = ""
    seconds: float = 2.0
    frame_rate: float = 8.0
    size: int = 256
    sound_rate: int = 16_000
    most_clips: int | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1

    def __post_init__(self):
        where = "data.video_files."
        for name in ("seconds", "frame_rate", "size", "sound_rate"):
            require(getattr(self, name) > 0, where + name, getattr(self, name), "more than 0")
        for name in ("frame_rate", "sound_rate"):
            number = self.seconds * getattr(self, name)
            whole = number >= 1 and math.isclose(number, round(number))
            told = f"a rate with a whole number of frames or samples in a clip of {self.seconds:g} s"
            require(whole, where + name, getattr(self, name), told)
        most = self.most_clips
        require(most is None or most >= 1, where + "most_clips", most, "1 or more, or None for all")
        shares = self.validation_fraction, self.test_fraction
        fit = min(shares) > 0 and sum(shares) < 1
        require(
            fit,
            where + "test_fraction",
            self.test_fraction,
            "more than 0, and less than 1 together with validation_fraction",
        )

    @property
    def num_frames(self) -> int:
        """T, the number of frames of a clip."""
        return round(self.seconds * self.frame_rate)

    @property
    def num_samples(self) -> int:
        """N, the number of sound samples of a clip."""
        return round(self.seconds * self.sound_rate)


class _Unusable(Exception):
    """Raised for a file without clips; the message says why."""


def load_video_files(
    config: VideoFilesConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None
) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are, and how to cut clips.
      cache_dir: unused; the files are decoded each time.
      names: names of the modalities; None for both. Other modalities are not decoded.

    Raises:
      SbmError: if PyAV is not installed, the directory does not exist, or a split has no clip.
    """
    del cache_dir
    names = MODALITIES if names is None else tuple(names)
    for name in names:
        if name not in MODALITIES:
            raise unknown("modality of video files:", name, MODALITIES)
    _av()
    root = files.directory(config.directory, f"video files ({', '.join(ENDINGS)})", "data.video_files.directory")
    paths = sorted(path for path in root.rglob("*") if _is_video(path.relative_to(root)) and path.is_file())
    clips: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in types.Dataset._fields[:3]}
    left_out: dict[pathlib.Path, str] = {}
    for path in paths:
        try:
            clips[_split(path.relative_to(root).as_posix(), config)] += _clips(path, config, names)
        except _Unusable as error:
            left_out[path] = str(error)
    told = _told(left_out, root)
    if left_out:
        logger.warning("%s: %d of %d files are left out: %s.", root, len(left_out), len(paths), told)
    for split, found in clips.items():
        if not found:
            raise SbmError(
                f"{root} has no clip of {config.seconds:g} s for the {split} split, of {len(paths)} files"
                f"{f'; left out: {told}' if told else ''}. Add files, shorten data.video_files.seconds, or change "
                "the fractions of the splits."
            )
    splits = {
        split: types.Split({name: np.stack([clip[name] for clip in found]) for name in names})
        for split, found in clips.items()
    }
    options = {name: value for name, value in dataclasses.asdict(config).items() if name != "directory"}
    settings = {"recipe": _RECIPE, "digest": files.listing_digest(root, paths), **options}
    return types.Dataset(**splits, num_classes={}, settings=settings)


def _is_video(path: pathlib.Path) -> bool:
    """Return whether a relative path names a video file, with no hidden part."""
    return path.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in path.parts)


def _split(name: str, config: VideoFilesConfig) -> str:
    """Return the split of a file, chosen by its relative path."""
    place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"


def _told(left_out: dict[pathlib.Path, str], root: pathlib.Path) -> str:
    """Return the names of the first files left out, with the reasons."""
    told = [f"{path.relative_to(root).as_posix()} ({reason})" for path, reason in left_out.items()]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


# MARK: Decoding


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise SbmError("video files need PyAV: pip install 'sbm_jax[video]'.") from error
    return av


def _clips(path: pathlib.Path, config: VideoFilesConfig, names: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Decode the clips of a file.

    Raises:
      _Unusable: if there is none, saying why.
    """
    av = _av()
    lengths = {"video": config.num_frames, "sound": config.num_samples}
    most = None if config.most_clips is None else {name: n * config.most_clips for name, n in lengths.items()}
    found: dict[str, np.ndarray] = {}
    try:
        if "video" in names:
            with av.open(str(path)) as container:
                found["video"] = _frames(container, config, most and most["video"])
        if "sound" in names:
            with av.open(str(path)) as container:
                found["sound"] = _sound(container, config, most and most["sound"])
    except (av.error.FFmpegError, OSError, ValueError) as error:  # undecodable, or with sizes of 0
        raise _Unusable(f"it cannot be decoded: {error}") from error
    number = min(len(found[name]) // lengths[name] for name in names)
    if not number:
        short = ", ".join(f"{len(found[name])} of {lengths[name]} of {name}" for name in names)
        raise _Unusable(f"it is shorter than a clip: {short}")
    whole = {name: found[name][: number * lengths[name]] for name in names}
    parts = {name: values.reshape(number, lengths[name], *values.shape[1:]) for name, values in whole.items()}
    return [{name: parts[name][i] for name in names} for i in range(number)]


def _frames(container: Any, config: VideoFilesConfig, most: int | None) -> np.ndarray:
    """Decode frames, uint8 [n, size, size, 3]: those shown at evenly spaced times, from the first frame on."""
    if not container.streams.video:
        raise _Unusable("it has no frames")
    stream = container.streams.video[0]
    found: list[np.ndarray] = []
    for start, end, frame in _shown(container, stream):
        square = None
        # A frame is shown from its own time until that of the next.
        while start - _SLACK <= len(found) / config.frame_rate < end - _SLACK and (most is None or len(found) < most):
            square = _square(frame, config.size) if square is None else square
            found.append(square)
        if most is not None and len(found) >= most:
            break
    return np.stack(found) if found else np.zeros((0, config.size, config.size, 3), np.uint8)


_SLACK = 1e-3  # seconds: tolerance for rounded times


def _shown(container: Any, stream: Any) -> Iterator[tuple[float, float, Any]]:
    """Yield (start, end, frame) of a stream: each frame with the times in seconds between which it is shown."""
    usual = 1 / float(stream.average_rate or 25)
    before, first = None, None
    for frame in container.decode(stream):
        time = frame.time
        if time is None:  # some containers store no times
            time = usual if before is None else before[0] + usual
        first = time if first is None else first
        if before is not None:
            yield before[0] - first, time - first, before[1]
        before = time, frame
    if before is not None:
        yield before[0] - first, before[0] - first + usual, before[1]


def _square(frame: Any, size: int) -> np.ndarray:
    """Return the central square of a frame, resized, uint8 [size, size, 3]."""
    image = frame.to_image()
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box).convert("RGB"))


def _sound(container: Any, config: VideoFilesConfig, most: int | None) -> np.ndarray:
    """Decode sound, float32 [n] in [-1, 1], from the time of the first frame on."""
    if not container.streams.audio:
        raise _Unusable("it has no sound")
    stream, rate = container.streams.audio[0], config.sound_rate
    shift = _start(stream) - (_start(container.streams.video[0]) if container.streams.video else 0.0)
    missing = round(shift * rate)
    parts = [np.zeros(max(0, missing), np.float32)]
    resampler = _av().AudioResampler(format="fltp", rate=rate)
    for frame in container.decode(stream):
        parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
        if most is not None and sum(map(len, parts)) + min(0, missing) >= most:
            break
    parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(None)]
    return np.clip(np.concatenate(parts)[max(0, -missing) :][:most], -1.0, 1.0).astype(np.float32)


def _start(stream: Any) -> float:
    """Return the start time of a stream in seconds."""
    return float((stream.start_time or 0) * stream.time_base)


DATASET = Loader(VideoFilesConfig, load_video_files)
