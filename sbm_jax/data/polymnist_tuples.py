"""Renders tuples of PolyMNIST-style data: for every modality, another image of the same digit.

The image is binarised and laid on a random crop of the modality's background, whose colours are inverted on the digit.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sbm_jax.data import digits

_BLOCK = 1024  # tuples rendered at a time, to bound memory
_THRESHOLD = 128  # pixels above it are on the digit
_MAX_SHIFT = 2  # pixels
_MAX_TURN = 12  # degrees
_MAX_SCALE = 0.1

Row = dict[str, Any]  # {modality: uint8 [28, 28, 3], "label": int}


def modality_names(num_modalities: int) -> list[str]:
    """Return m0, m1, ..."""
    return [f"m{k}" for k in range(num_modalities)]


class _Draws(NamedTuple):
    """The random choices for one modality of N tuples: digit, left and top of the crop [N]; warp [N, 6]."""

    digit: np.ndarray
    left: np.ndarray
    top: np.ndarray
    warp: np.ndarray | None


def tuples(
    part: digits.Digits, images: Sequence[np.ndarray], seed: Sequence[int], augment: float = 0.0
) -> Iterator[Row]:
    """Yield one tuple per digit, in order: modality k shows a digit of the same label over background k.

    Every modality shows each digit exactly once. Each modality has its own random stream, so it does not depend on the
    number of modalities.

    Args:
      part: the digits.
      images: one background per modality, uint8 [H, W, 3].
      seed: non-negative integers.
      augment: strength of the random warps; see `polymnist.PolyMnistConfig`.
    """
    draws = [
        _draw(part.labels, image.shape, np.random.default_rng([*seed, k]), augment) for k, image in enumerate(images)
    ]
    names = modality_names(len(images))
    for first in range(0, len(part.labels), _BLOCK):
        block = slice(first, first + _BLOCK)
        data = [_render(part.images, image, draw, block) for image, draw in zip(images, draws, strict=True)]
        for label, *row in zip(part.labels[block], *data, strict=True):
            yield {"label": int(label), **dict(zip(names, row, strict=True))}


def _draw(labels: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator, augment: float) -> _Draws:
    digit = np.empty(len(labels), int)
    for label in range(digits.NUM_CLASSES):
        rows = np.flatnonzero(labels == label)
        digit[rows] = generator.permutation(rows)
    left, top = (generator.integers(0, side - digits.SIZE + 1, len(labels)) for side in (shape[1], shape[0]))
    warp = _warps(generator, len(labels), augment) if augment else None
    return _Draws(digit, left, top, warp)


def _warps(generator: np.random.Generator, num: int, strength: float) -> np.ndarray:
    """Return affine maps from result to source, [num, 6]: (a, b, c, d, e, f), x' = ax + by + c, y' = dx + ey + f."""
    shift, turn, scale = (strength * generator.uniform(-1, 1, (n, num)) for n in (2, 1, 1))
    angle = np.deg2rad(_MAX_TURN) * turn[0]
    size = 1 / (1 + _MAX_SCALE * scale[0])
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    centre = (digits.SIZE - 1) / 2
    x, y = centre + _MAX_SHIFT * shift
    return np.stack([cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y], axis=1)


def _render(shapes: np.ndarray, image: np.ndarray, draws: _Draws, block: slice) -> np.ndarray:
    """Render one modality of a block of tuples, uint8 [n, 28, 28, 3]."""
    shown = shapes[draws.digit[block]]
    if draws.warp is not None:
        shown = np.stack([_warped(*pair) for pair in zip(shown, draws.warp[block], strict=True)])
    windows = np.lib.stride_tricks.sliding_window_view(image, (digits.SIZE, digits.SIZE), axis=(0, 1))
    crops = np.moveaxis(windows[draws.top[block], draws.left[block]], 1, -1)
    return np.where((shown > _THRESHOLD)[..., None], 255 - crops, crops)


def _warped(shape: np.ndarray, warp: np.ndarray) -> np.ndarray:
    image = Image.fromarray(shape)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, warp.tolist(), Image.Resampling.BILINEAR))
