"""Kinds of modalities: what arrays of one's own are, guessed from their type, shape and values.

A kind is a function of the rows, which says how they are declared as a `Modality`, but for the sizes of networks and
latents, which are up to `presets`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sbm_jax.config import plain
from sbm_jax.errors import SbmError, unknown
from sbm_jax.formats.spectrogram import SpectrogramOptions
from sbm_jax.formats.text import TextOptions, build_vocabulary, words_of


class Guess(NamedTuple):
    """What rows were taken for.

    Attributes:
      kind: a key of `KINDS`.
      fields: of the `Modality`, but for name, codec and latent size.
      told: in a few words, for the user.
    """

    kind: str
    fields: dict[str, Any]
    told: str


MOST_CLASSES = 100
"""Strings or integers with more different values are no names of classes."""

ROWS_PER_CLASS = 5
"""Nor are those that occur in fewer rows on average."""

LEAST_SIDE = 8
"""Matrices of fewer rows or columns are no pictures."""

LONGEST_VECTOR = 8000
"""Entries of a row of numbers; longer ones may be sound, and need a word from the user."""

SECONDS_OF_WINDOW, FRAMES_PER_SECOND = 0.064, 32
"""How sound is analysed where nothing is said of it: fine enough for speech, coarse enough for small networks."""

DYNAMIC_RANGE = 50.0
"""Decibels below the peak of all rows that are kept: what is further below is mostly noise of the recording. Of spoken
digits a classifier reads most with 45 to 50."""

Others = Sequence[np.ndarray]
Options = Mapping[str, Any]
Declared = tuple[dict[str, Any], str]

# MARK: The kinds


def _image(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Pictures, uint8 or in [0, 1] or [-1, 1], else standardised per channel: [N, H, W, C], or grey ones [N, H, W]."""
    del others, options
    grey = rows.ndim == 3
    shape = (*rows.shape[1:], 1) if grey else rows.shape[1:]
    fields: dict[str, Any] = {"shape": shape, "format": "grey" if grey else "array"}
    low, high = (0.0, 1.0) if rows.dtype == np.uint8 else (float(rows.min()), float(rows.max()))
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        if bounds[0] <= low and high <= bounds[1]:
            return {**fields, "bounds": bounds}, f"images in [{bounds[0]:g}, {bounds[1]:g}]"
    if grey:
        raise SbmError(
            f"grey pictures [N, H, W] with values from {low:g} to {high:g}; expected uint8, or floats in [0, 1] or "
            "[-1, 1]. Rescale them, add an axis for the channel, or say that they are numbers: {'kind': 'numbers'}."
        )
    return {**fields, "format": _standardized(rows)}, "pictures, standardised per channel"


def _binary(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Yes or no: tags [N, K], masks [N, H, W] or [N, H, W, 1]. One yes in every row of tags: one-hot classes."""
    del others, options
    picture = rows.ndim >= 3
    grey = rows.ndim == 3
    shape = (*rows.shape[1:], 1) if grey else rows.shape[1:] or (1,)
    yes = int(rows.max()) or 1
    fields = {
        "shape": shape,
        "likelihood": "bernoulli",
        "format": {"name": "binary", "options": {"yes": yes, "dtype": rows.dtype.name, "grey": grey}},
    }
    if picture:
        return {**fields, "bounds": (0.0, 1.0)}, f"masks, 0 or {yes}"
    if rows.ndim == 2 and rows.shape[1] > 1 and ((rows != 0).sum(axis=1) == 1).all():
        return {**fields, "likelihood": "categorical"}, f"one of {rows.shape[1]} classes, one-hot"
    return fields, f"{rows[0].size} tags, yes or no"


def _numbers(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Numbers of any range, standardised: [N] or [N, ...]."""
    del others, options
    return {"shape": rows.shape[1:] or (1,), "format": _standardized(rows)}, "numbers, standardised"


def _probabilities(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Probabilities of classes, which sum to 1 along the last axis."""
    del others, options
    return {"shape": rows.shape[1:], "likelihood": "categorical"}, f"probabilities of {rows.shape[-1]} classes"


def _counts(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Numbers of events, 0, 1, 2, ..., with a Poisson likelihood: [N, K]."""
    del others, options
    return {"shape": rows.shape[1:] or (1,), "likelihood": "poisson"}, "counts"


def _category(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """The name or number of a class: [N]; ``classes``: all that there are, and their order."""
    classes = tuple(options.get("classes") or np.unique(np.concatenate([rows, *others])).tolist())
    fields = {"shape": (len(classes),), "likelihood": "categorical"}
    return {**fields, "format": {"name": "category", "options": {"classes": classes}}}, f"one of {len(classes)} classes"


def _text(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Texts [N], as words that training rows have ``least`` times, or as bytes (``unit``: "byte")."""
    unit = options.get("unit", "word")
    if unit not in ("word", "byte"):
        raise unknown("unit of a text:", unit, ("word", "byte"))
    words = build_vocabulary(rows.tolist(), options.get("least", 1)) if unit == "word" else ()
    texts = np.concatenate([rows, *others]).tolist()
    longest = max(len(words_of(text)) if words else len(text.encode()) for text in texts)
    own = TextOptions(words)
    fields = {
        "shape": (max(longest, 1),),
        "vocabulary_size": own.vocabulary_size,
        "likelihood": "categorical",
        "format": {"name": "text", "options": {"words": words}},
    }
    return fields, f"texts of at most {longest} {unit}s" + (f", {len(words):,} different" if words else "")


def _tokens(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Sequences of ids from 1, [N, L], padded with 0."""
    del options
    size = int(max(array.max() for array in (rows, *others))) + 1
    fields = {"shape": rows.shape[1:], "vocabulary_size": max(size, 2), "likelihood": "categorical"}
    return fields, f"sequences of ids below {size:,}, padded with 0"


def _sound(rows: np.ndarray, others: Others, options: Options) -> Declared:
    """Waveforms [N, T] of ``rate`` samples a second; beside it any option of the format ``spectrogram``."""
    del others
    if rows.ndim != 2 or "rate" not in options:
        raise SbmError(
            f"sound is {rows.dtype} {['N', *rows.shape[1:]]} with {dict(options)}; expected waveforms [N, T] and their "
            "samples a second: {'kind': 'sound', 'options': {'rate': 8000}}."
        )
    rate, length = options["rate"], rows.shape[1]
    window = 1 << round(math.log2(rate * SECONDS_OF_WINDOW))
    peak = np.abs(rows.astype(np.float64)).max() / (2**15 if rows.dtype == np.int16 else 1)
    top = 5.0 * math.ceil(4 * math.log10(max(peak, 1e-5)))  # decibels, rounded up to a multiple of 5
    usual = {"num_mels": 32 if rate <= 8000 else 64, "window": window, "hop": max(1, rate // FRAMES_PER_SECOND)}
    usual["decibels"] = (top - DYNAMIC_RANGE, top)
    own = SpectrogramOptions(length=length, **{**usual, **options})
    fields = {
        "shape": (own.num_frames, own.num_mels, 1),
        "bounds": (0.0, 1.0),
        "format": {"name": "spectrogram", "options": plain(own)},
    }
    return fields, f"sound of {length / rate:.3g} s, as a spectrogram"


KINDS: dict[str, Callable[[np.ndarray, Others, Options], Declared]] = {
    "image": _image,
    "binary": _binary,
    "numbers": _numbers,
    "probabilities": _probabilities,
    "counts": _counts,
    "category": _category,
    "text": _text,
    "tokens": _tokens,
    "sound": _sound,
}
"""The kinds by name: `(training rows, those of the other splits, options) -> (fields, what it is in words)`."""


def _standardized(rows: np.ndarray) -> dict[str, Any]:
    """Return the format with the means and standard deviations along the last axis; 1 for what never changes."""
    entries = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1).astype(np.float64)
    std = entries.std(axis=0)
    options = {"mean": tuple(entries.mean(axis=0).tolist()), "std": tuple(np.where(std > 0, std, 1.0).tolist())}
    return {"name": "standardized", "options": options}


# MARK: Guessing


def guess(name: str, rows: np.ndarray, given: Mapping[str, Any], others: Others = ()) -> Guess:
    """Return how the rows of a modality are declared.

    Args:
      name: of the modality.
      rows: the training rows that have it: strings [N], or finite numbers [N, ...].
      given: fields of the modality that the user declares, which are taken as they are, and two that are no fields:
        ``kind``, a key of `KINDS`, and ``options`` of that kind.
      others: the rows of other splits, of which the longest text and the largest id count too.

    Raises:
      SbmError: if they can not be guessed, or are not of the kind that is given.
    """
    given = dict(given)
    options = given.pop("options", {})
    kind = given.pop("kind", None)
    if kind is None:
        kind = "declared" if "shape" in given else _kind(name, rows)
    if kind == "declared":
        return Guess(kind, given, "as declared")
    if kind not in KINDS:
        raise unknown(f"kind of modality {name!r}:", kind, KINDS)
    try:
        fields, told = KINDS[kind](rows, others, options)
    except SbmError as error:
        raise SbmError(f"modality {name!r}: {error}") from error
    return Guess(kind, {**fields, **given}, told)


def _kind(name: str, rows: np.ndarray) -> str:
    """Return the kind of rows, by their type, shape and values."""
    axes, kind = rows.ndim, rows.dtype.kind
    if kind == "U":
        return "category" if axes == 1 and is_class(rows) else "text"
    if axes > 4:
        raise _unclear(name, rows, "at most four axes: rows, height, width, channels")
    if _is_binary(rows):
        return "binary"
    if kind in "ui" and rows.dtype != np.uint8:
        return _kind_of_integers(rows)
    if axes >= 3 and min(rows.shape[1:3]) >= LEAST_SIDE and (axes == 4 or _in_unit_range(rows)):
        return "image"
    if rows.dtype == np.uint8:
        raise _unclear(name, rows, "pictures [N, H, W] or [N, H, W, C] of uint8, or another type for numbers")
    if axes == 2 and rows.shape[1] >= LONGEST_VECTOR:
        raise _unclear(name, rows, f"fewer than {LONGEST_VECTOR} numbers a row, where nothing is said about them")
    sums = rows.sum(axis=-1) if axes == 2 and rows.shape[1] > 1 else np.zeros(1)
    return "probabilities" if rows.min() >= 0 and np.allclose(sums, 1.0, atol=1e-3) else "numbers"


def _kind_of_integers(rows: np.ndarray) -> str:
    if rows.ndim == 1:
        return "category" if is_class(rows) else "numbers"
    if rows.min() < 0:
        return "numbers"
    return "tokens" if rows.ndim == 2 and rows.shape[1] >= 4 and _pads_at_the_end(rows) else "counts"


def _pads_at_the_end(rows: np.ndarray) -> bool:
    """Return whether zeros are at the ends of rows only, as where they pad sequences of ids."""
    padding = rows == 0
    return bool((padding[:, 1:] >= padding[:, :-1]).all() and not padding[:, 0].all())


def _is_binary(rows: np.ndarray) -> bool:
    """Return whether there are two values, 0 and 1 (or 255 of uint8), in rows of at least one entry."""
    if rows.dtype == np.bool_:
        return True
    yes = rows.max()
    return bool((yes == 1 or (rows.dtype == np.uint8 and yes == 255)) and ((rows == 0) | (rows == yes)).all())


def is_class(rows: np.ndarray) -> bool:
    """Return whether strings or integers [N] have so few values that they are names of classes."""
    number = len(np.unique(rows))
    return 2 <= number <= min(MOST_CLASSES, len(rows) // ROWS_PER_CLASS)


def _in_unit_range(rows: np.ndarray) -> bool:
    return rows.dtype == np.uint8 or (rows.min() >= 0 and rows.max() <= 1)


def _unclear(name: str, rows: np.ndarray, expected: str) -> SbmError:
    return SbmError(
        f"modality {name!r} is {rows.dtype} {['N', *rows.shape[1:]]}; expected {expected}. Say what it is: "
        f"modalities={{{name!r}: {{'kind': ...}}}} with one of {', '.join(sorted(KINDS))}."
    )
