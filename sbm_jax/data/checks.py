"""Checks data before training, and warns of what looks wrong in them."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from sbm_jax import types
from sbm_jax.data.records import Column, RecordSplit, sum_range
from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, unknown
from sbm_jax.formats import make_format
from sbm_jax.rows import Repeated

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def check(dataset: types.Dataset, modalities: Sequence[types.Modality]) -> types.Dataset:
    """Convert data to arrays, check them against the declared modalities, and warn of what looks wrong.

    Args:
      dataset: the data.
      modalities: the declared names, shapes and likelihoods.

    Returns:
      The data, in the types that `check_data` returns.

    Raises:
      SbmError: naming the split and the modality; see `check_data`. Also if a modality is missing, or its number of
        rows differs from the others'.
    """
    checked = {name: _check_split(name, getattr(dataset, name), modalities) for name in SPLITS}
    seen = {name: _in_memory(split) for name, split in checked.items()}
    for modality in modalities:
        rows = {name: _present(split, modality.name) for name, split in seen.items()}
        if not all(map(len, rows.values())):
            continue  # no sampled row of a split on disk has the modality
        _tell_unusual(rows["train"], modality)
        _tell_unlike(rows, modality)
    return dataset._replace(**checked)


def _in_memory(split: types.Split) -> types.Split:
    """Return the rows; of rows on disk, an evenly spaced sample."""
    return split.take(np.arange(0, len(split), -(-len(split) // _FEW))) if isinstance(split, RecordSplit) else split


def _present(split: types.Split, name: str) -> np.ndarray:
    """Return the rows that have a modality."""
    rows = split.data[name]
    return rows if split.present is None else rows[split.present[name]]


def _check_split(name: str, split: types.Split, modalities: Sequence[types.Modality]) -> types.Split:
    if not split.data:
        expected = [modality.name for modality in modalities]
        raise SbmError(f"the {name} split has no modality; expected {expected}. Add data.")
    data, clip = dict(split.data), {}
    for modality in modalities:
        if modality.name not in data:
            raise unknown(f"modality in the {name} split:", modality.name, data)
        where = f"{name}/{modality.name}"
        if isinstance(split, RecordSplit):
            _require_arrays(where, modality)
            clip |= _check_column(where, data[modality.name].column, modality)
        else:
            data[modality.name] = _checked_rows(where, data[modality.name], modality)
        if split.present is not None and not split.present[modality.name].any():
            raise SbmError(f"no row of the {name} split has modality {modality.name!r}; add some, or leave it out.")
    if name == "test" and not split.having([modality.name for modality in modalities]).any():
        raise SbmError(f"no row of the test split has all of {', '.join(m.name for m in modalities)}. Add some.")
    lengths = {key: len(rows) for key, rows in data.items()}
    lengths |= {question: len(answers) for question, answers in split.labels.items()}
    if len(set(lengths.values())) != 1:
        raise SbmError(f"the {name} split has {lengths} rows; expected the same number for each. Fix the data.")
    if not isinstance(split, RecordSplit):
        return dataclasses.replace(split, data=data)
    ids = frozenset(modality.name for modality in modalities if modality.vocabulary_size)
    return dataclasses.replace(split, clip=clip, ids=ids)


def _checked_rows(where: str, values: np.ndarray | Repeated, modality: types.Modality) -> np.ndarray:
    """Return the rows of a modality as networks see them; repeated rows are converted and checked once."""
    if isinstance(values, Repeated):
        return _checked_rows(where, values.distinct, modality)[values.indices]
    return check_data(where, make_format(modality).to_array(values, f"data {where!r}"), modality)


def _require_arrays(where: str, modality: types.Modality) -> None:
    """Check that rows on disk need no conversion."""
    if not make_format(modality).passes_arrays:
        raise SbmError(
            f"data {where!r} is on disk, where nothing is converted, but modality {modality.name!r} has the format "
            f"{modality.format.name!r}. Write the arrays that networks are to see, with the format 'array'."
        )


_FEW = 1000  # rows from which the typical size of values is estimated
_LARGE = 20  # values of this many units are far from an untrained network's outputs
_SMALL = 0.01  # values that differ by this many units are nearly equal to the likelihood
_DARK = 0.1  # uint8 data that stay below this share of their range may not be pixels


def _tell_unusual(rows: np.ndarray, modality: types.Modality) -> None:
    """Warn of training data that cannot be learned well: constants, or data in other units than the likelihood's.

    Args:
      rows: rows as returned by `check_data`.
      modality: their modality.
    """
    where = f"data 'train/{modality.name}'"
    if not (rows[:2] != rows[0]).any() and not (rows != rows[0]).any():
        logger.warning(
            "%s: all rows are equal, so nothing can be learned from it. Leave it out, or fix the data.", where
        )
        return
    if modality.vocabulary_size or modality.likelihood == "poisson":
        return  # ids and counts have no units
    pixels = rows.dtype == np.uint8
    low, high = (float(value) / (255.0 if pixels else 1.0) for value in (rows.min(), rows.max()))
    size, probabilities = _size(rows), _in_unit_range(modality)
    unit = 0.5 if probabilities else modality.scale or 1.0
    found = f"{where} has values from {_digits(np.float32(low))} to {_digits(np.float32(high))}"
    likelihood = f"the {modality.likelihood} likelihood"
    likelihood += "" if probabilities or not modality.scale else f" of scale {modality.scale:.3g}"
    if pixels and high < _DARK:
        logger.warning("%s: uint8 stands for value / 255. If these are not pixels, convert them to float.", found)
    elif not pixels and size > _LARGE * max(unit, 1.0):
        logger.warning(
            "%s and a root mean square of %.3g; %s is meant for values of about 1, so the model may learn little. "
            "Standardise the data (store 8-bit pixels as uint8), or raise the modality's scale.",
            *(found, size, likelihood),
        )
    elif high - low < _SMALL * unit:
        logger.warning(
            "%s, which are nearly equal to %s, so the model may learn little. Standardise the data, or choose another "
            "likelihood or scale.",
            *(found, likelihood),
        )


def _size(rows: np.ndarray) -> float:
    """Return the root mean square of a sample of the rows, where uint8 stands for value / 255."""
    some = rows[:: max(1, len(rows) // _FEW)].astype(np.float64)
    return float(np.sqrt(np.mean(np.square(some)))) / (255.0 if rows.dtype == np.uint8 else 1.0)


_UNLIKE = 10.0  # held-out rows larger or smaller than training rows by this factor seem to be in other units


def _tell_unlike(rows: Mapping[str, np.ndarray], modality: types.Modality) -> None:
    """Warn of held-out rows that seem to be in other units than the training rows."""
    if modality.vocabulary_size:
        return
    trained = _size(rows["train"])
    for name in SPLITS[1:]:
        size = _size(rows[name])
        if trained and size and not 1 / _UNLIKE < size / trained < _UNLIKE:
            logger.warning(
                "data '%s/%s' has a root mean square of %.3g, but the training rows have %.3g: are both in the same "
                "units?",
                *(name, modality.name, size, trained),
            )


def _in_unit_range(modality: types.Modality) -> bool:
    """Return whether the likelihood is defined on [0, 1]."""
    return modality.likelihood in LIKELIHOODS and LIKELIHOODS[modality.likelihood].bounded


def check_data(name: str, rows: np.ndarray, modality: types.Modality) -> np.ndarray:
    """Check the rows of one modality and return them as uint8, float32, or int32 for ids, [N, *shape].

    Args:
      name: name of the data, for messages.
      rows: real numbers [N, *shape], or ids [N, L].
      modality: the declared shape, likelihood and bounds; values out of bounds by rounding errors are clipped.

    Raises:
      SbmError: if there are no rows, or they have another shape, are not numbers, are not finite, are out of bounds,
        are not probabilities under the categorical likelihood, or are not ids of the vocabulary.
    """
    given = rows = np.asarray(rows)
    where = f"data {name!r}"
    _check_shape(where, rows.shape, modality)
    if rows.dtype.kind not in "uifb":
        raise SbmError(f"{where} has the type {rows.dtype}; expected uint8, integers or floats. Convert it.")
    if modality.vocabulary_size:
        _check_ids(where, rows.dtype, rows.min(), rows.max(), modality)
        parts = rows.reshape(len(rows), make_format(modality).num_sequences, -1)
        inside = np.flatnonzero(((parts[..., :-1] == 0) & (parts[..., 1:] != 0)).any(axis=(1, 2)))
        if len(inside):
            raise SbmError(
                f"{where} has an id after a 0 in row {inside[0]}; modality {modality.name!r} expects 0 only as "
                "padding at the end. If 0 means something else in the data, number ids from 1."
            )
        return rows.astype(np.int32, copy=False)
    if rows.dtype == np.uint8:
        _check_pixels(where, rows.max(), modality)
    else:
        with np.errstate(over="ignore"):  # overflow becomes infinite, and is refused below
            rows = rows.astype(np.float32, copy=False)
        if given.dtype.kind in "ui" and not np.array_equal(rows.astype(np.float64), given.astype(np.float64)):
            raise SbmError(f"{where} has integers that float32 cannot hold; expected values up to 2**24. Rescale it.")
        if not np.isfinite(rows).all():
            raise SbmError(f"{where} has NaN or infinite values; expected finite values. Fix the data.")
        if bounds := _bounds_left(where, rows.min(), rows.max(), modality):
            rows = np.clip(rows, *bounds).astype(rows.dtype)
    if modality.likelihood == "categorical":
        _check_probabilities(where, sum_range(rows), rows.dtype, rows.shape[-1])
    return rows


def _check_column(name: str, column: Column, modality: types.Modality) -> dict[str, tuple[float, float]]:
    """Check a modality of records from the description of its column, as `check_data` checks arrays.

    Returns:
      {modality: bounds} if values are out of bounds by rounding errors, otherwise {}.
    """
    where = f"data {name!r}"
    _check_shape(where, ("N", *column.shape), modality)
    if modality.vocabulary_size:
        _check_ids(where, np.dtype(column.dtype), column.low, column.high, modality)
        return {}
    if column.dtype == "uint8":
        _check_pixels(where, column.high, modality)
        bounds = None
    else:
        least, largest = (np.dtype(column.dtype).type(value) for value in (column.low, column.high))
        bounds = _bounds_left(where, least, largest, modality)
    if modality.likelihood == "categorical":
        _check_probabilities(where, column.sums, np.dtype(column.dtype), column.shape[-1])
    return {modality.name: bounds} if bounds else {}


def _check_shape(where: str, shape: Sequence[int | str], modality: types.Modality) -> None:
    if tuple(shape[1:]) != modality.shape or shape[0] == 0:
        raise SbmError(
            f"{where} has the shape {list(shape)}; expected {['N', *modality.shape]} with N of 1 or "
            f"more, as modality {modality.name!r} declares. Fix the data or the declared shape."
        )


def _check_ids(where: str, dtype: np.dtype, least: float, largest: float, modality: types.Modality) -> None:
    """Check that values are ids of the vocabulary."""
    if dtype.kind not in "ui":
        raise SbmError(f"{where} has the type {dtype}; modality {modality.name!r} expects integer ids. Convert them.")
    last = modality.vocabulary_size - 1
    if least < 0 or largest > last:
        wrong = least if least < 0 else largest
        raise SbmError(
            f"{where} has the id {int(wrong)}; modality {modality.name!r} expects 0 (padding) to {last}. Fix the "
            "data, or the modality's vocabulary_size."
        )


def _check_pixels(where: str, largest: float, modality: types.Modality) -> None:
    """Check that uint8 can stand for value / 255, as it does everywhere."""
    if largest == 1:
        raise SbmError(f"{where} is uint8 with no value above 1; uint8 stands for value / 255. Convert it to float.")
    if modality.likelihood == "poisson":
        raise SbmError(f"{where} is uint8, which stands for value / 255, but counts are integers. Convert it to int32.")
    if modality.bounds and modality.bounds != (0.0, 1.0):
        low, high = modality.bounds
        raise SbmError(
            f"{where} is uint8, which stands for value / 255, from 0 to 1; modality {modality.name!r} has bounds "
            f"{low:g} to {high:g}. Convert the data to float in these units, or change the bounds."
        )


_ROUNDING = 1e-5  # share of the range by which float32 rounding may exceed it


def _bounds_left(
    where: str, least: np.number, largest: np.number, modality: types.Modality
) -> tuple[float, float] | None:
    """Return the bounds if values exceed them, by rounding errors only; None if they do not.

    Raises:
      SbmError: if values exceed the bounds by more.
    """
    likelihood = LIKELIHOODS.get(modality.likelihood)
    least_known = likelihood.least if likelihood else -np.inf
    low, high = modality.bounds or ((0.0, 1.0) if _in_unit_range(modality) else (least_known, np.inf))
    if low <= least and largest <= high:
        return None
    slack = _ROUNDING * (high - low) if np.isfinite(high - low) else 0.0
    if least < low - slack or largest > high + slack:
        raise SbmError(
            f"{where} has values from {_digits(least)} to {_digits(largest)}; modality {modality.name!r} with the "
            f"{modality.likelihood} likelihood expects {low:g} to {high:g} (or uint8, which stands for 0 to "
            "1). Rescale the data, or change the modality's bounds or likelihood."
        )
    return low, high


def _digits(value: np.number) -> str:
    """Return a number with enough digits to identify it among values of its type."""
    return f"{float(str(value)):.9g}"


_SUM_ERROR = 0.01  # tolerance of a sum of probabilities of any precision


def _check_probabilities(where: str, sums: tuple[float, ...], dtype: np.dtype, num_classes: int) -> None:
    """Check that the last axis holds class probabilities; all zeros, as in rows without the modality, pass."""
    error = _SUM_ERROR + (num_classes / 510.0 if dtype == np.uint8 else 0.0)  # uint8 rounds each probability
    wrong = [value for value in sums if abs(value - 1.0) > error]
    if wrong:
        raise SbmError(
            f"{where} has entries that sum to {wrong[0]:.4g}; the categorical likelihood expects "
            "class probabilities along the last axis, which sum to 1. Turn class indices into one-hot rows, or change "
            "the likelihood."
        )
