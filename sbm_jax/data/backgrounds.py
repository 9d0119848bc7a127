"""Backgrounds of PolyMNIST-style modalities: procedural textures, or a directory of images.

A texture has structure at the scale of the digits' strokes and a palette symmetric about mid-grey, such as dark blue
to light yellow. The inverse of each colour is in the palette too, so a pixel on a digit looks like a background pixel
elsewhere: the best threshold on a channel, on luminance or on any function of a single pixel's colour is wrong on
about one pixel in six. What reveals the digit, to an eye or a network that sees many pixels, is that dark colours are
more common (`_DARK`). Otherwise a blurred reconstruction, which is the mean colour of the background or of its
inverse, would hide the digit altogether.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable

import numpy as np

from sbm_jax.data import files
from sbm_jax.errors import SbmError

MIN_SIZE = 28  # pixels: the side of a crop
_SIZE = 256  # pixels: the side of a texture
_DARK = 0.82  # the share of pixels below mid-grey, which is the accuracy of the best threshold
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_FINE = 3.6  # pixels: the period of irregular textures
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are evenly spread, however many

Field = np.ndarray  # float64 [_SIZE, _SIZE]
Draw = Callable[[np.random.Generator], Field]


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of backgrounds.

    Attributes:
      load: `(directory, num, seed) -> num arrays`, uint8 [H, W, 3], at least 28x28.
      digest: `(directory, num) -> str`, a digest of the content that `load` would read.
    """

    load: Callable[[str, int, int], list[np.ndarray]]
    digest: Callable[[str, int], str]


# MARK: Directories


def from_directory(path: str, num: int) -> list[np.ndarray]:
    """Return the first `num` images of a directory by name, as uint8 [H, W, 3].

    Raises:
      SbmError: if the directory is missing or has too few images, or an image is unreadable or smaller than 28x28.
    """
    return [_read(file) for file in _image_files(path, num)]


def _image_files(path: str, num: int) -> list[pathlib.Path]:
    root = files.directory(path, "background images", "backgrounds_directory")
    found = files.listing(root, _SUFFIXES)
    if len(found) < num:
        raise SbmError(
            f"{root} has {len(found)} images ({', '.join(_SUFFIXES)}); expected {num}, one for each "
            "modality. Add images or lower num_modalities."
        )
    return found[:num]


def _read(file: pathlib.Path) -> np.ndarray:
    pixels, _ = files.rgb_image(file, "Replace or remove it.")
    if min(pixels.shape[:2]) < MIN_SIZE:
        height, width, _ = pixels.shape
        raise SbmError(f"{file} is {width}x{height}; expected at least {MIN_SIZE}x{MIN_SIZE}. Replace or remove it.")
    return pixels


# MARK: Textures


def textures(num: int, seed: int) -> list[np.ndarray]:
    """Return coloured textures made by ten recipes in turn, uint8 [256, 256, 3].

    Texture k depends only on the seed and k. From the eleventh on, recipes repeat with other colours, angles and
    periods.
    """
    return [_texture(k, np.random.default_rng([seed, k])) for k in range(num)]


def _texture(k: int, generator: np.random.Generator) -> np.ndarray:
    level = _level(_RECIPES[k % len(_RECIPES)](generator), _DARK)
    tint = _level(_noise(generator, _SIZE / _FINE), 0.5)
    main, side = _palette((generator.uniform(0, 0.05) + k * _GOLDEN) % 1.0)
    colours = 0.5 + level[:, :, None] * main + tint[:, :, None] * side
    return np.round(255 * colours).astype(np.uint8)


def _level(field: Field, common: float) -> Field:
    """Map a field to [-1/2, 1/2], mostly near the ends, with a share `common` of it below 0."""
    rank = _ranks(field) ** (np.log(0.5) / np.log(common))
    return 0.5 * np.sin(np.pi * (rank - 0.5))


def _palette(hue: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two RGB directions: from a dark colour of this hue to its inverse, and a weak one across it."""
    ramp = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1.0 * 6 - 3) - 1, 0, 1)
    main = 0.88 - 0.33 * ramp
    side = np.roll(ramp, 1) - np.roll(ramp, 2)
    return main, 0.12 * side / np.abs(side).max()


def _ranks(field: Field) -> Field:
    """Return each pixel's rank, from 0 to 1."""
    # Equal values, common in regular textures, share a rank.
    _, inverse, counts = np.unique(np.round(field, 6), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * counts) / field.size
    return ranks[inverse].reshape(field.shape)


def _noise(
    generator: np.random.Generator,
    cycles: float,
    width: float = 0.2,
    angle: float = 0.0,
    stretch: float = 1.0,
) -> Field:
    """Return noise with `cycles` waves across the texture, stretched along `angle` by a factor `stretch`."""
    y, x = np.meshgrid(*[np.fft.fftfreq(_SIZE, 1 / _SIZE)] * 2, indexing="ij")
    across = -np.sin(angle) * x + np.cos(angle) * y
    along = np.cos(angle) * x + np.sin(angle) * y
    radius = np.hypot(across, stretch * along) / cycles
    band = np.exp(-(np.log(np.maximum(radius, 1e-6)) ** 2) / (2 * width**2))
    field = np.fft.ifft2(np.fft.fft2(generator.standard_normal((_SIZE, _SIZE))) * band).real
    return field / field.std()


def _turned(generator: np.random.Generator, warp: float = 0.0) -> tuple[Field, Field]:
    """Return pixel coordinates rotated by a random angle and warped by smooth noise of `warp` pixels."""
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(float)
    if warp:
        x, y = (axis + warp * _noise(generator, _SIZE / 28) for axis in (x, y))
    angle = generator.uniform(0.15, 0.45) * np.pi
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _period(generator: np.random.Generator) -> float:
    """Return a period in pixels, about the width of a stroke."""
    return generator.uniform(4.0, 4.8)


# (a, b, n): a x + b y grows by n over one period, n / hypot(a, b) = 4.2 to 4.5 pixels, and the texture repeats after n
# pixels. Crops at whole pixels then have few distinct phases, which small autoencoders can learn.
_LATTICES = ((2, 1, 10), (1, 2, 10), (1, 1, 6), (2, -1, 10), (1, -2, 10))


def _lattice(generator: np.random.Generator, periods: float = 1.0) -> tuple[Field, Field]:
    """Return two orthogonal coordinates of a rotated square lattice, in units of `periods` periods."""
    a, b, n = _LATTICES[generator.integers(len(_LATTICES))]
    y, x = np.mgrid[:_SIZE, :_SIZE]
    shift = generator.uniform(0, 1, 2)
    return (a * x + b * y) / (periods * n) + shift[0], (a * y - b * x) / (periods * n) + shift[1]


def _grain(generator: np.random.Generator) -> Field:
    return _noise(generator, _SIZE / _FINE)


def _stripes(generator: np.random.Generator) -> Field:
    u, _ = _lattice(generator)
    return np.sin(2 * np.pi * u)


def _cells(generator: np.random.Generator) -> Field:
    """Return the distance to the nearest point of a jittered grid."""
    period = _SIZE / (_SIZE // _period(generator))
    num = round(_SIZE / period)
    y, x = np.mgrid[:_SIZE, :_SIZE] / period
    shifts = generator.uniform(0.15, 0.85, (2, num, num))
    distances = []
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        row, column = np.floor(y).astype(int) + down, np.floor(x).astype(int) + right
        point = shifts[:, row % num, column % num]
        distances.append(np.hypot(row + point[0] - y, column + point[1] - x))
    return np.min(distances, axis=0)


def _rings(generator: np.random.Generator) -> Field:
    u, v = _turned(generator, warp=1.0)
    return np.sin(2 * np.pi * np.hypot(u + 60, 0.35 * v - 20) / _period(generator))


def _checks(generator: np.random.Generator) -> Field:
    u, v = _lattice(generator, 1.5)
    return np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)


def _fibres(generator: np.random.Generator) -> Field:
    return _noise(generator, _SIZE / _FINE, angle=generator.uniform(0, np.pi), stretch=4.0)


def _dots(generator: np.random.Generator) -> Field:
    u, v = _lattice(generator)
    return np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)


def _marble(generator: np.random.Generator) -> Field:
    u, _ = _turned(generator)
    return np.sin(2 * np.pi * u / _period(generator) + 1.5 * _noise(generator, _SIZE / 20))


def _bricks(generator: np.random.Generator) -> Field:
    u, v = _lattice(generator, 0.75)  # a brick is one high and two long
    row = np.floor(v)
    column = 0.5 * (u + row % 2)
    to_bed, to_joint = np.abs(v - np.round(v)), 2 * np.abs(column - np.round(column))
    return np.minimum(to_bed, to_joint)


def _scales(generator: np.random.Generator) -> Field:
    u, v = _lattice(generator, 0.75)  # a scale is one high and two wide
    row = np.floor(v)
    centre = (0.5 * (u + row % 2)) % 1.0 - 0.5
    return np.cos(2.2 * np.pi * np.hypot(2 * centre, v - row))


# Regular ones first: a small autoencoder learns them in minutes on a CPU.
_RECIPES: tuple[Draw, ...] = (
    _dots,
    _stripes,
    _scales,
    _checks,
    _bricks,
    _rings,
    _grain,
    _marble,
    _fibres,
    _cells,
)

# MARK: The sources

SOURCES: dict[str, Source] = {
    "textures": Source(lambda _, num, seed: textures(num, seed), lambda *_: "drawn"),
    "directory": Source(
        lambda path, num, _: from_directory(path, num),
        lambda path, num: files.content_digest(_image_files(path, num)),
    ),
}
