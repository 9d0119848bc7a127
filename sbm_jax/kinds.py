"""Kinds of modalities: what arrays of one's own are, guessed from their type, shape and values.

A kind is a function of the rows, which says how they are declared as a `Modality`, but for the sizes of networks and
latents, which are up to `presets`.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from sbm_jax.errors import SbmError, unknown

logger = logging.getLogger(__name__)


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

# MARK: The kinds


def _image(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Pictures, uint8 or in [0, 1] or [-1, 1], else standardised per channel: [N, H, W, C], or grey ones [N, H, W]."""
    del options
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


def _binary(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Yes or no: tags [N, K], masks [N, H, W] or [N, H, W, 1]. One yes in every row of tags: one-hot classes."""
    del options
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


def _numbers(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Numbers of any range, standardised: [N] or [N, ...]."""
    del options
    return {"shape": rows.shape[1:] or (1,), "format": _standardized(rows)}, "numbers, standardised"


def _probabilities(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Probabilities of classes, which sum to 1 along the last axis."""
    del options
    return {"shape": rows.shape[1:], "likelihood": "categorical"}, f"probabilities of {rows.shape[-1]} classes"


def _counts(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Numbers of events, 0, 1, 2, ..., with a Poisson likelihood: [N, K]."""
    del options
    return {"shape": rows.shape[1:] or (1,), "likelihood": "poisson"}, "counts"


def _category(rows: np.ndarray, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The name or number of a class: [N]."""
    classes = tuple(options.get("classes") or np.unique(rows).tolist())
    fields = {"shape": (len(classes),), "likelihood": "categorical"}
    return {**fields, "format": {"name": "category", "options": {"classes": classes}}}, f"one of {len(classes)} classes"


KINDS: dict[str, Callable[[np.ndarray, Mapping[str, Any]], tuple[dict[str, Any], str]]] = {
    "image": _image,
    "binary": _binary,
    "numbers": _numbers,
    "probabilities": _probabilities,
    "counts": _counts,
    "category": _category,
}
"""The kinds by name: `(rows, options) -> (fields of the modality, what it is in words)`."""


def _standardized(rows: np.ndarray) -> dict[str, Any]:
    """Return the format with the means and standard deviations along the last axis; 1 for what never changes."""
    entries = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1).astype(np.float64)
    std = entries.std(axis=0)
    options = {"mean": tuple(entries.mean(axis=0).tolist()), "std": tuple(np.where(std > 0, std, 1.0).tolist())}
    return {"name": "standardized", "options": options}


# MARK: Guessing


def guess(name: str, rows: np.ndarray, given: Mapping[str, Any]) -> Guess:
    """Return how the rows of a modality are declared.

    Args:
      name: of the modality.
      rows: the training rows that have it: strings [N], or finite numbers [N, ...].
      given: fields of the modality that the user declares, which are taken as they are, and two that are no fields:
        ``kind``, a key of `KINDS`, and ``options`` of that kind.

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
        fields, told = KINDS[kind](rows, options)
    except SbmError as error:
        raise SbmError(f"modality {name!r}: {error}") from error
    return Guess(kind, {**fields, **given}, told)


def _kind(name: str, rows: np.ndarray) -> str:
    """Return the kind of rows, by their type, shape and values."""
    axes, kind = rows.ndim, rows.dtype.kind
    if kind == "U":
        return "category" if axes == 1 and _few_classes(rows) else "text"
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
        return "category" if _few_classes(rows) else "numbers"
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


def _few_classes(rows: np.ndarray) -> bool:
    number = len(np.unique(rows))
    return 2 <= number <= min(MOST_CLASSES, len(rows) // ROWS_PER_CLASS)


def _in_unit_range(rows: np.ndarray) -> bool:
    return rows.dtype == np.uint8 or (rows.min() >= 0 and rows.max() <= 1)


def _unclear(name: str, rows: np.ndarray, expected: str) -> SbmError:
    return SbmError(
        f"modality {name!r} is {rows.dtype} {['N', *rows.shape[1:]]}; expected {expected}. Say what it is: "
        f"modalities={{{name!r}: {{'kind': ...}}}} with one of {', '.join(sorted(KINDS))}."
    )
