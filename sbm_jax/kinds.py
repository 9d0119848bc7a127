"""Kinds of modalities, guessed from the type, shape and values of a user's arrays.

A kind specifies which arrays it accepts and how to declare them as a `Modality`, except for the sizes of networks and
latents, which `presets` chooses. Rows arrive in the user's own form; the format that a kind declares converts them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sbm_jax.config import build, checked_dataclass, plain
from sbm_jax.data.memory import is_class
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import SpectrogramOptions
from sbm_jax.formats.text import TextOptions, build_vocabulary, words_of
from sbm_jax.formats.video import VideoOptions
from sbm_jax.types import Modality

LEAST_SIDE = 8
"""Arrays with fewer rows or columns than this are not taken for images."""

LONGEST_VECTOR, LONGEST_INT16 = 8000, 1000
"""Lengths from which a row of numbers, or of int16, may be sound, so that the user must declare its kind."""

LARGEST_VOCABULARY, MOST_UNUSED = 2**18, 100
"""Ids above both this size and this many times the number of distinct ids are taken for hashes, not words."""

SHARE_OF_ZEROS = 0.05
"""Integers with a smaller share of zeros are not taken for counts."""

DARKEST = 32
"""Images of uint8 that stay below this value are taken for label maps, and refused."""

FRAMES_PER_SECOND = 32
"""Default frame rate of spectrograms: fine enough for speech, coarse enough for small networks."""

DYNAMIC_RANGE = 50.0
"""Range of spectrograms in decibels below the peak over all rows; anything quieter is mostly recording noise.
A classifier of spoken digits is most accurate with 45 to 50."""

Others = Sequence[np.ndarray]
Declared = tuple[dict[str, Any], str]


@checked_dataclass
class NoOptions:
    """Options of kinds that have none."""


class Guess(NamedTuple):
    """The kind guessed for rows, and how to declare it.

    Attributes:
      kind: a key of `KINDS`, or ``"declared"``.
      fields: fields of the `Modality`, except name, codec and latent size.
      told: a short description for the user.
    """

    kind: str
    fields: dict[str, Any]
    told: str

    @property
    def is_picture(self) -> bool:
        """Whether image networks suit the modality."""
        picture = len(self.fields["shape"]) == 3
        return picture and self.kind in ("image", "binary", "sound", "declared")

    @property
    def is_video(self) -> bool:
        """Whether the modality has frames."""
        return self.kind == "video"

    @property
    def is_class(self) -> bool:
        """Whether each row is one of several classes."""
        return self.kind == "category" or (self.kind == "binary" and self.fields["likelihood"] == "categorical")

    def classes(self, name: str, rows: np.ndarray, where: str) -> np.ndarray:
        """Return the class index of each row, int32 [N]; requires `is_class`. Errors name the rows `where`."""
        modality = Modality(**{**self.fields, "name": name, "latent_size": 1, "codec": "mlp"})
        return make_format(modality).to_array(rows, where).argmax(axis=-1).astype(np.int32)


class Kind(NamedTuple):
    """Which arrays a kind accepts, and how to declare them.

    Attributes:
      declare: `(training rows, rows of the other splits, options) -> (fields, description)`.
      types: accepted NumPy type codes (`dtype.kind`), such as ``"ui"``.
      axes: accepted numbers of axes, counting the row axis.
      expected: the accepted arrays in words.
      options: a `checked_dataclass`.
    """

    declare: Callable[[np.ndarray, Others, Any], Declared]
    types: str
    axes: tuple[int, ...]
    expected: str
    options: type = NoOptions


# MARK: The kinds


def _image(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del options
    grey = rows.ndim == 3
    fields: dict[str, Any] = {"shape": (*rows.shape[1:], 1) if grey else rows.shape[1:]}
    low, high = _range_of_pixels(rows, others)
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        if bounds[0] <= low and high <= bounds[1]:
            fields |= {"bounds": bounds, "format": {"name": "array", "options": {"without_axis": grey}}}
            return fields, f"images in [{bounds[0]:g}, {bounds[1]:g}]"
    channels = rows[..., None] if grey else rows
    told = f"images from {low:g} to {high:g}, standardised" + ("" if grey else " per channel")
    return {**fields, "format": _standardized(channels, grey)}, told


def _range_of_pixels(rows: np.ndarray, others: Others) -> tuple[float, float]:
    """Return the smallest and largest value over all splits; uint8 represents [0, 1]."""
    pixels = {array.dtype == np.uint8 for array in (rows, *others)}
    if len(pixels) > 1:
        raise SbmError("images are uint8 in some splits and of another type in others; use one type for all splits.")
    return (0.0, 1.0) if rows.dtype == np.uint8 else _range(rows, others)


def _video(rows: np.ndarray, others: Others, options: VideoOptions) -> Declared:
    low, high = _range_of_pixels(rows, others)
    if rows.shape[-1] not in (1, 3) or not 0 <= low <= high <= 1:
        raise SbmError(
            f"videos have {rows.shape[-1]} channels and values from {low:g} to {high:g}; expected 1 or 3 channels, and "
            "uint8 or floats in [0, 1]. Convert them."
        )
    fields = {"shape": rows.shape[1:], "bounds": (0.0, 1.0), "format": {"name": "video", "options": plain(options)}}
    return fields, f"videos of {rows.shape[1]} frames"


def _binary(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del options
    lacks_axis = rows.ndim in (1, 3)
    low, high = _range(rows, others)
    no, yes = min(0, int(low)), int(high) or 1
    written = {"yes": yes, "no": no, "dtype": rows.dtype.name, "without_axis": lacks_axis}
    shape = (*rows.shape[1:], 1) if lacks_axis else rows.shape[1:]
    fields = {"shape": shape, "likelihood": "bernoulli", "format": {"name": "binary", "options": written}}
    if rows.ndim >= 3:
        return {**fields, "bounds": (0.0, 1.0)}, f"masks, {no} or {yes}"
    number = rows[0].size
    if number > 1 and all(((array != no).sum(axis=1) == 1).all() for array in (rows, *others)):
        return {**fields, "likelihood": "categorical"}, f"one of {number} classes, one-hot"
    return fields, "yes or no" if number == 1 else f"{number} tags, yes or no"


def _range(rows: np.ndarray, others: Others) -> tuple[float, float]:
    """Return the smallest and largest value over all splits."""
    return float(min(array.min() for array in (rows, *others))), float(max(array.max() for array in (rows, *others)))


def _numbers(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del others, options
    return {"shape": rows.shape[1:] or (1,), "format": _standardized(rows)}, "numbers, standardised"


def _probabilities(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del others, options
    return {"shape": rows.shape[1:], "likelihood": "categorical"}, f"probabilities of {rows.shape[-1]} classes"


def _counts(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del others, options
    single = {"format": {"name": "array", "options": {"without_axis": True}}} if rows.ndim == 1 else {}
    return {"shape": rows.shape[1:] or (1,), "likelihood": "poisson", **single}, "counts"


@checked_dataclass
class CategoryOptions:
    """Options of categories: `classes` lists all classes, in order; () for those that occur in the data."""

    classes: tuple[Any, ...] = ()


def _category(rows: np.ndarray, others: Others, options: CategoryOptions) -> Declared:
    classes = options.classes or tuple(np.unique(np.concatenate([rows, *others])).tolist())
    fields = {"shape": (len(classes),), "likelihood": "categorical"}
    told = f"one of {len(classes)} classes: {', '.join(map(str, classes[:8]))}{', ...' if len(classes) > 8 else ''}"
    return {**fields, "format": {"name": "category", "options": {"classes": classes}}}, told


@checked_dataclass
class TextKindOptions:
    """Options of texts: `unit` is ``"word"`` or ``"byte"``; words rarer than `least` in training rows are unknown."""

    unit: str = "word"
    least: int = 1

    def __post_init__(self):
        if self.unit not in ("word", "byte"):
            raise unknown("unit of texts:", self.unit, ("word", "byte"))
        require(self.least >= 1, "least", self.least, "at least 1")


def _text(rows: np.ndarray, others: Others, options: TextKindOptions) -> Declared:
    words = _words(rows, others, options.least) if options.unit == "word" else ()
    lengths = [len(words_of(text)) if words else len(text.encode()) for part in (rows, *others) for text in part]
    longest = max(1, *lengths)
    fields = {
        "shape": (longest,),
        "vocabulary_size": TextOptions(words).vocabulary_size,
        "likelihood": "categorical",
        "format": {"name": "text", "options": {"words": words}},
    }
    told = f"texts of at most {longest} {options.unit}s, {round(np.mean(lengths))} on average"
    return fields, told + (f"; {len(words):,} different" if words else "")


def _words(rows: np.ndarray, others: Others, least: int) -> tuple[str, ...]:
    """Return the vocabulary of the training rows, which must include most words of the other splits."""
    words = build_vocabulary(rows.tolist(), least)
    if not words:
        raise SbmError(f"no word occurs {least} times or more in the texts; expected at least one. Lower 'least'.")
    known, held_out = {*words}, [word for part in others for text in part for word in words_of(text)]
    unknown_words = sum(word not in known for word in held_out)
    if unknown_words > 0.5 * len(held_out):
        raise SbmError(
            f"{unknown_words} of the {len(held_out)} words of held-out texts do not occur in any training text. If "
            "words are not separated by spaces, use bytes, {'kind': 'text', 'options': {'unit': 'byte'}}; otherwise, "
            "give more rows."
        )
    return words


def _tokens(rows: np.ndarray, others: Others, options: NoOptions) -> Declared:
    del options
    size = int(max(array.max() for array in (rows, *others))) + 1
    different = len(np.unique(np.concatenate([array.ravel() for array in (rows, *others)])))
    if size > max(MOST_UNUSED * different, LARGEST_VOCABULARY) or size > 2**31:
        raise SbmError(f"ids reach {size - 1:,}, but only {different:,} are distinct. Number them from 1.")
    fields = {"shape": rows.shape[1:], "vocabulary_size": max(size, 2), "likelihood": "categorical"}
    return fields, f"sequences of ids below {size:,}, padded with 0"


def _sound(rows: np.ndarray, others: Others, options: Mapping[str, Any]) -> Declared:
    del others
    options = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    rate = options.get("rate")
    whole = isinstance(rate, int) and rate >= 1
    require(
        whole,
        "options of sound: rate",
        rate,
        "a positive whole number of samples per second, as in {'kind': 'sound', 'options': {'rate': 16000}}",
    )
    assert isinstance(rate, int)
    ragged = rows.dtype == object
    length = max(map(len, rows)) if ragged else rows.shape[1]
    hop = max(1, rate // FRAMES_PER_SECOND)
    peak = max(np.abs(np.asarray(wave, np.float64)).max(initial=0) / _full_scale(wave) for wave in rows)
    top = 5.0 * math.ceil(4 * math.log10(max(peak, 1e-5)))  # decibels, rounded up to a multiple of 5
    usual: dict[str, Any] = {
        "num_mels": 32 if rate <= 8000 else 64,
        "window": 1 << (2 * hop - 1).bit_length(),
        "hop": hop,
    }
    usual |= {"decibels": (top - DYNAMIC_RANGE, top), "pad": ragged, "length": length}
    own = build(SpectrogramOptions, {**usual, **options}, "options of sound")
    fields = {
        "shape": (own.num_frames, own.num_mels, 1),
        "bounds": (0.0, 1.0),
        "format": {"name": "spectrogram", "options": plain(own)},
    }
    low, high = own.decibels
    return fields, f"sound of {length / own.rate:.3g} s, as a spectrogram from {low:g} to {high:g} dB"


def _full_scale(wave: np.ndarray) -> float:
    return 2.0**15 if np.asarray(wave).dtype == np.int16 else 1.0


KINDS: dict[str, Kind] = {
    "image": Kind(_image, "uif", (3, 4), "images [N, H, W, C], or grey ones [N, H, W]"),
    "binary": Kind(
        _binary, "buif", (1, 2, 3, 4), "yes or no, as 1 and 0: tags [N, K], masks [N, H, W] or [N, H, W, 1]"
    ),
    "numbers": Kind(_numbers, "uif", (1, 2, 3, 4), "numbers [N] or [N, ...]"),
    "probabilities": Kind(_probabilities, "f", (2, 3), "probabilities that sum to 1 along the last axis"),
    "counts": Kind(_counts, "ui", (1, 2, 3), "whole numbers from 0, [N] or [N, K]"),
    "category": Kind(_category, "Uui", (1,), "the name or the number of a class for each row, [N]", CategoryOptions),
    "text": Kind(_text, "U", (1,), "strings [N], or several for each row [N, K]", TextKindOptions),
    "tokens": Kind(_tokens, "ui", (2,), "ids from 1, padded with 0, [N, L]"),
    "video": Kind(_video, "uf", (5,), "videos [N, T, H, W, C], uint8 or floats in [0, 1]", VideoOptions),
    "sound": Kind(_sound, "fiO", (1, 2), "waveforms [N, T], floats in [-1, 1] or int16", dict),
}
"""The kinds by name."""


def _standardized(rows: np.ndarray, grey: bool = False) -> dict[str, Any]:
    """Return a format that standardises each entry of the last axis, or only centres it if it is constant."""
    entries = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1).astype(np.float64)
    changes = entries.max(axis=0) > entries.min(axis=0)  # rounding may make the deviation of a constant nonzero
    std = np.where(changes, entries.std(axis=0), 1.0)
    options = {"mean": tuple(entries.mean(axis=0).tolist()), "std": tuple(std.tolist())}
    return {"name": "standardized", "options": {**options, "without_axis": grey or rows.ndim == 1}}


# MARK: Guessing


def guess(name: str, rows: np.ndarray, given: Mapping[str, Any], others: Others = ()) -> Guess:
    """Guess the kind of a modality from its rows, and how to declare it.

    Args:
      name: name of the modality.
      rows: the training rows that have it: strings [N], finite numbers [N, ...], or N waveforms of different lengths.
      given: fields of the `Modality` that the user declares, which are used unchanged, and optionally ``kind``, a key
        of `KINDS`, and ``options`` of that kind.
      others: rows of the other splits, whose longest text, largest id and classes count too.

    Raises:
      SbmError: if the kind cannot be guessed, or the rows do not fit the given kind.
    """
    given = dict(given)
    options, kind = given.pop("options", {}), given.pop("kind", None)
    if "name" in given:
        raise SbmError(f"modality {name!r}: name is {given['name']!r}; its name is the key in data. Leave it out.")
    if "shape" in given:
        shape = given["shape"]
        sides = isinstance(shape, (list, tuple)) and all(isinstance(side, int) and side >= 1 for side in shape)
        require(sides and bool(shape), f"modality {name!r}: shape", shape, "positive integers, such as (64, 64, 3)")
    if kind is None and "shape" in given:
        require(not options, f"modality {name!r}: options", options, "none without a kind; add the kind")
        return Guess("declared", given, "as declared")
    require(isinstance(options, Mapping), f"modality {name!r}: options", options, "a dictionary")
    kind = _kind(name, _all(rows, others)) if kind is None else kind
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(f"kind of modality {name!r}:", kind, KINDS)
    taken = KINDS[kind]
    for array in (rows, *others):
        if array.dtype.kind not in taken.types or array.ndim not in taken.axes or 0 in array.shape:
            raise SbmError(
                f"modality {name!r} is {array.dtype} {['N', *array.shape[1:]]}; the kind {kind!r} expects "
                f"{taken.expected}. Convert it, or choose another kind: {', '.join(KINDS)}."
            )
    try:
        checked = options if taken.options is dict else build(taken.options, options, f"options of {kind}")
        fields, told = taken.declare(rows, others, checked)
    except SbmError as error:
        raise SbmError(f"modality {name!r}: {error}") from error
    longer = kind in ("text", "tokens")  # the user may want room for longer sequences than the given rows
    if "shape" in given and not longer and tuple(given["shape"]) != tuple(fields["shape"]):
        raise SbmError(
            f"modality {name!r}: shape is {given['shape']}, but as {kind!r} it has the shape {fields['shape']}. Leave "
            "out the shape or the kind."
        )
    return Guess(kind, {**fields, **given}, told)


def _all(rows: np.ndarray, others: Others) -> np.ndarray:
    """Return the rows of all splits if they share a type and shape, else the training rows."""
    alike = all(array.dtype.kind == rows.dtype.kind and array.shape[1:] == rows.shape[1:] for array in others)
    return np.concatenate([rows, *others]) if alike and others else rows


def _kind(name: str, rows: np.ndarray) -> str:
    """Guess the kind of rows from their type, shape and values."""
    axes, kind = rows.ndim, rows.dtype.kind
    if kind == "U":
        return "category" if is_class(rows) else "text"
    if kind == "O":
        raise _unclear(name, rows, "rows of equal length, except for sound")
    if axes == 5 and rows.shape[-1] in (1, 3):
        return "video"
    if axes > 4:
        raise _unclear(name, rows, "images [N, H, W, C], or videos [N, T, H, W, C] with 1 or 3 channels")
    if axes == 4 and rows.shape[1] in (1, 3) and rows.shape[3] > 4:
        raise _unclear(name, rows, "images with their channels last, [N, H, W, C]")
    if _is_binary(rows):
        return "binary"
    if kind in "ui" and rows.dtype != np.uint8:
        return _kind_of_integers(name, rows)
    if axes >= 3 and min(rows.shape[1:3]) >= LEAST_SIDE:
        if rows.dtype == np.uint8 and rows.max() < DARKEST:
            raise _unclear(name, rows, f"values up to 255 in images, not {rows.max()}, and one-hot masks for labels")
        return "image"
    if rows.dtype == np.uint8:
        if axes == 1 and is_class(rows):
            return "category"
        raise _unclear(name, rows, "images [N, H, W] or [N, H, W, C] of uint8, or another type for numbers")
    if axes == 2 and rows.shape[1] >= LONGEST_VECTOR:
        raise _unclear(name, rows, f"fewer than {LONGEST_VECTOR} numbers per row, or a declared kind")
    sums = rows.sum(axis=-1) if axes == 2 and rows.shape[1] > 1 else np.zeros(1)
    return "probabilities" if rows.min() >= 0 and np.allclose(sums, 1.0, atol=1e-3) else "numbers"


def _kind_of_integers(name: str, rows: np.ndarray) -> str:
    axes = rows.ndim
    if axes == 1:
        return "category" if is_class(rows) else "numbers"
    if axes >= 3 and min(rows.shape[1:3]) >= LEAST_SIDE:
        raise _unclear(name, rows, "uint8 for the pixels of images, and one-hot or binary masks for label maps")
    if axes == 2 and rows.shape[1] >= (LONGEST_INT16 if rows.dtype == np.int16 else LONGEST_VECTOR):
        raise _unclear(name, rows, "fewer integers per row, or a declared kind")
    if axes == 2 and rows.min() >= 0 and rows.shape[1] >= 4 and _pads_at_the_end(rows):
        return "tokens"
    counted = rows.min() >= 0 and (rows == 0).mean() >= SHARE_OF_ZEROS
    return "counts" if counted else "numbers"


def _pads_at_the_end(rows: np.ndarray) -> bool:
    """Return whether rows look like recurring ids of several lengths, padded with zeros at the end."""
    padding, ids = rows == 0, rows[rows != 0]
    at_ends = (padding[:, 1:] >= padding[:, :-1]).all() and not padding[:, 0].all()
    lengths = np.unique(padding.sum(axis=1)[padding.any(axis=1)])
    return bool(at_ends and len(lengths) >= 2 and 2 * len(np.unique(ids)) <= len(ids))


def _is_binary(rows: np.ndarray) -> bool:
    """Return whether rows have two values: 0 and 1, also -1 and 1 for tags, and 0 and 255 for uint8."""
    if rows.dtype == np.bool_:
        return True
    low, high = rows.min(), rows.max()
    signed = rows.ndim == 2 and low == -1 and high == 1
    known = signed or (low >= 0 and (high == 1 or (rows.dtype == np.uint8 and high == 255)))
    return bool(known and ((rows == (low if signed else 0)) | (rows == high)).all())


def _unclear(name: str, rows: np.ndarray, expected: str) -> SbmError:
    return SbmError(
        f"modality {name!r} is {rows.dtype} {['N', *rows.shape[1:]]}; expected {expected}. Convert it, or say what it "
        f"is: modalities={{{name!r}: {{'kind': ...}}}} with one of {', '.join(KINDS)}."
    )
