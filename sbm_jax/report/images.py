"""Sample grids: PNG mosaics with a cell per modality and borders around given ones, or tables if there are texts."""

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

OVERLAY_COLOR = np.array([0.90, 0.10, 0.60])
"""The colour of a mask that is laid half transparently over an image."""

GIVEN_COLOR = (245, 158, 11, 255)  # same as --given in template.html
BAR_COLOR = (110, 130, 160, 255)
BAR_BACKGROUND = (128, 128, 128, 40)
BORDER, GAP = 4, 3  # pixels of the mosaic, on each side of a cell
CELL = 96  # approximate pixels per side of a cell, unless images are larger
VECTOR_CELL = 32  # pixels per side that the cells of bars are based on, without images


class Panel(NamedTuple):
    """One example of a sample grid.

    Attributes:
      source: ``data:`` URL of the mosaic.
      columns: headings of the columns, all or none.
      lines: headings of the lines, all or none.
      shape: number of lines and columns of cells.
    """

    source: str
    columns: tuple[str, ...]
    lines: tuple[str, ...]
    shape: tuple[int, int]


class TextCell(NamedTuple):
    """A text, and whether it was given."""

    text: str
    given: bool


class TextLine(NamedTuple):
    """A line of a `TextPanel`: its heading or "", the ``data:`` URL of its images or "", and its texts."""

    heading: str
    source: str
    cells: tuple[TextCell, ...]


class TextPanel(NamedTuple):
    """One example of a sample grid with texts, as a table: one column for all images, and one for each text.

    Attributes:
      pictures: names of the modalities in the mosaics.
      texts: names of the text modalities.
      table: the lines.
    """

    pictures: tuple[str, ...]
    texts: tuple[str, ...]
    table: tuple[TextLine, ...]


def is_image(shape: tuple[int, ...]) -> bool:
    """Return whether examples of this shape are grey, RGB or RGBA images, channels last."""
    return len(shape) == 3 and shape[-1] in (1, 3, 4)


def to_rgba(values: np.ndarray) -> np.ndarray:
    """Convert an image [H, W, C], uint8 or in [0, 1], to uint8 [H, W, 4]; non-finite pixels are magenta."""
    scaled = values.astype(np.float64) / 255 if values.dtype == np.uint8 else values.astype(np.float64)
    lost = ~np.isfinite(scaled).all(axis=-1)
    pixels = (np.clip(np.nan_to_num(scaled), 0, 1) * 255 + 0.5).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3:
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=-1)
    pixels[lost] = (255, 0, 255, 255)
    return pixels


def bars(values: np.ndarray, size: int) -> np.ndarray:
    """Draw a vector [K] as a bar chart, uint8 [size, size, 4].

    Bars of values in [0, 1] start from the lower edge. If any value is outside, all bars start from the middle, and the
    largest magnitude fills the cell. Non-finite values have no bar.
    """
    values = np.nan_to_num(np.ravel(values).astype(np.float64), posinf=0.0, neginf=0.0)
    signed = bool((values < 0).any() or (values > 1).any())
    heights = 0.5 + 0.5 * values / np.abs(values).max() if signed else values
    base = 0.5 if signed else 0.0
    columns = np.arange(size) * len(values) // size
    level = 1 - (np.arange(size) + 0.5) / size
    top, low = np.maximum(heights, base)[columns], np.minimum(heights, base)[columns]
    filled = (level[:, None] >= low[None]) & (level[:, None] <= top[None])
    # Leave a column of background between bars if there is room.
    if size >= 3 * len(values):
        filled[:, np.diff(columns, prepend=columns[0]) > 0] = False
    return np.where(filled[..., None], np.array(BAR_COLOR), np.array(BAR_BACKGROUND)).astype(np.uint8)


def cell(values: np.ndarray, size: int) -> np.ndarray:
    """Draw one example of any shape as uint8 [size, size, 4]; images keep their aspect ratio."""
    if not is_image(values.shape):
        return bars(values, size)
    image = to_rgba(values)
    height, width = image.shape[:2]
    scale = size / max(height, width)
    rows = (np.arange(round(height * scale)) / scale).astype(int).clip(max=height - 1)
    columns = (np.arange(round(width * scale)) / scale).astype(int).clip(max=width - 1)
    image = image[rows][:, columns]
    canvas = np.zeros((size, size, 4), np.uint8)
    top, left = (size - len(rows)) // 2, (size - len(columns)) // 2
    canvas[top : top + len(rows), left : left + len(columns)] = image
    return canvas


def cell_size(shapes: list[tuple[int, ...]]) -> int:
    """Return the cell size: an integer multiple of the largest image, so that all pixels stay the same size."""
    largest = max([max(shape[:2]) for shape in shapes if is_image(shape)], default=VECTOR_CELL)
    return largest * max(1, round(CELL / largest))


def mosaic(cells: list[list[np.ndarray]], observed: np.ndarray) -> np.ndarray:
    """Assemble cells [lines][columns] of one size into an RGBA image, with borders around given ones.

    Args:
      cells: uint8 [size, size, 4] each.
      observed: bool [lines, columns].
    """
    size, margin = cells[0][0].shape[0], BORDER + GAP
    pitch = size + 2 * margin
    canvas = np.zeros((len(cells) * pitch, len(cells[0]) * pitch, 4), np.uint8)
    for i, line in enumerate(cells):
        for j, pixels in enumerate(line):
            frame = canvas[i * pitch : (i + 1) * pitch, j * pitch : (j + 1) * pitch]
            if observed[i, j]:
                frame[GAP:-GAP, GAP:-GAP] = GIVEN_COLOR
            frame[margin:-margin, margin:-margin] = pixels
    return canvas


def png_address(pixels: np.ndarray) -> str:
    """Encode an RGBA image as a ``data:`` URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def panels(
    data: Mapping[str, np.ndarray],
    observed: np.ndarray,
    lines: tuple[str, ...] = (),
    transposed: bool = False,
) -> list[Panel] | list[TextPanel]:
    """Return one panel per example. Masks of the same size as the only colour image are also shown over it.

    Args:
      data: {modality: [E, L, *shape]}, in the order of the columns; texts are strings [E, L], or integer ids.
      observed: bool [E, L, M].
      lines: headings of the lines, or none.
      transposed: show modalities as lines; ignored if there are texts.
    """
    data, observed = _with_overlays(data, observed)
    if any(_is_text(values) for values in data.values()):
        return [_text_panel(data, observed, lines, example) for example in range(len(observed))]
    size = cell_size([values.shape[2:] for values in data.values()])
    examples = []
    for example, given in enumerate(observed):
        cells = [[cell(values[example, line], size) for values in data.values()] for line in range(len(given))]
        if transposed:
            columns = [list(column) for column in zip(*cells, strict=True)]
            source = png_address(mosaic(columns, given.T))
            examples.append(Panel(source, lines, tuple(data), given.T.shape))
        else:
            examples.append(Panel(png_address(mosaic(cells, given)), tuple(data), lines, given.shape))
    return examples


def _with_overlays(data: Mapping[str, np.ndarray], observed: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Add to the data and the observed mask a column for each mask over the image."""
    shapes = {name: values.shape[2:] for name, values in data.items() if not _is_text(values)}
    colours = [name for name, shape in shapes.items() if len(shape) == 3 and shape[-1] == 3]
    found, columns = dict(data), list(np.moveaxis(observed, -1, 0))
    if len(colours) == 1:
        picture, index = colours[0], list(data).index(colours[0])
        for name in [name for name, shape in shapes.items() if shape == (*shapes[picture][:2], 1)]:
            found[f"{name} over {picture}"] = overlay(data[picture], data[name])
            columns.append(columns[index] & columns[list(data).index(name)])
    return found, np.stack(columns, axis=-1)


def overlay(pictures: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Colour images [..., H, W, 3] in [0, 1] where masks [..., H, W, 1] are 1."""
    share = 0.5 * np.clip(masks, 0.0, 1.0)
    return (1.0 - share) * pictures + share * OVERLAY_COLOR


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "Ui"


def _text_panel(
    data: Mapping[str, np.ndarray], observed: np.ndarray, lines: tuple[str, ...], example: int
) -> TextPanel:
    """Return the panel of one example; see `panels`."""
    texts = [name for name, values in data.items() if _is_text(values)]
    pictures = [name for name in data if name not in texts]
    size = cell_size([data[name].shape[2:] for name in pictures])
    table = []
    for line, mask in enumerate(observed[example]):
        given = dict(zip(data, mask.tolist(), strict=True))
        cells = [cell(data[name][example, line], size) for name in pictures]
        source = png_address(mosaic([cells], np.array([[given[name] for name in pictures]]))) if cells else ""
        found = tuple(TextCell(_text(data[name][example, line]), given[name]) for name in texts)
        table.append(TextLine(lines[line] if lines else "", source, found))
    return TextPanel(tuple(pictures), tuple(texts), tuple(table))


def _text(value: np.ndarray) -> str:
    """Return a text as it is, or the ids [L] of a sequence without padding."""
    return str(value) if value.ndim == 0 else " ".join(str(number) for number in value if number)
