"""Rows that users pass in memory: converted to arrays, checked for consistency and divided into splits.

Rows stay in the users' form; formats convert them later (see `formats`).
"""

import dataclasses
import numbers
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import arrays, labels
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require
from sbm_jax.rows import Repeated

Columns = Mapping[str, Any]

MOST_CLASSES, MOST_NUMBERED = 100, 20
"""The most distinct strings, and integers, that count as classes."""

ROWS_PER_CLASS = 5
"""The fewest rows per distinct integer or sentence, on average, for these to count as classes; 2 for single words."""


@checked_dataclass
class MemoryConfig:
    """Rows that were passed to `fit` in memory."""


def _refuse(config: MemoryConfig, cache_dir: pathlib.Path, names: Sequence[str] | None) -> types.Dataset:
    del config, cache_dir, names
    raise SbmError("this experiment was trained on rows in memory. Call sbm_jax.fit with them again.")


DATASET = Loader(MemoryConfig, _refuse)

# MARK: Rows


def make_splits(data: Columns, held_out: Mapping[str, Columns | float], seed: int) -> dict[str, types.Split]:
    """Divide rows into three splits, in the users' form, with words as labels replaced by numbers.

    Args:
      data: training rows by column, from which splits without rows of their own are held out.
      held_out: {"test" or "validation": rows by column, or a share of `data`}.
      seed: seed of the choice of rows.

    Raises:
      SbmError: if the rows are inconsistent, or too few.
    """
    given = {"train": _read(data, "data")}
    given |= {name: _read(rows, name) for name, rows in held_out.items() if isinstance(rows, Mapping)}
    for name, split in given.items():
        found, expected = ({*part.data, *map(labels.array_of, part.labels)} for part in (split, given["train"]))
        if found != expected:
            raise SbmError(f"{name} has {sorted(found)}; expected what data has: {sorted(expected)}.")
    splits = _with_numbers(given)
    for question, answers in splits["train"].labels.items():
        labels.check_classes(question, np.unique(answers), answers, pathlib.Path("data"))
    rng = np.random.default_rng(seed)
    parts = 3 - sum(name in splits for name in held_out)
    if len(splits["train"]) < parts:
        raise SbmError(f"data has {len(splits['train'])} rows; expected at least {parts}, some to hold out.")
    whole = splits["train"]
    for name in ("test", "validation"):  # test first, which needs complete rows
        if name not in splits:
            wanted = _share(name, held_out[name]) * len(_complete(whole) if name == "test" else whole)
            splits["train"], splits[name] = _divided(splits["train"], max(1, round(wanted)), name, rng)
    _require_pairs(splits["train"])
    test = splits["test"]
    if len(_complete(test)) == len(test):
        splits["test"] = dataclasses.replace(test, present=None)
    return splits


def _share(name: str, given: Any) -> float:
    expected = "rows by modality, or a share of the rows between 0 and 1"
    if not isinstance(given, numbers.Real) or isinstance(given, bool):
        raise SbmError(f"{name} is of type {type(given).__name__}; expected {expected}.")
    require(0 < given < 1, name, given, expected)
    return float(given)


def _complete(split: types.Split) -> np.ndarray:
    """Return the indices of the rows that have all modalities."""
    if split.present is None:
        return np.arange(len(split))
    return np.flatnonzero(np.all(list(split.present.values()), axis=0))


def _require_pairs(train: types.Split) -> None:
    """Refuse training rows if none has two modalities, so that nothing shows how modalities are related."""
    if train.present is not None and max(np.sum(list(train.present.values()), axis=0)) < 2 <= len(train.present):
        raise SbmError(
            f"none of the {len(train)} training rows has two modalities, so nothing shows how modalities are related. "
            "Give rows that have several, or hold out fewer of them."
        )


def _read(data: Columns, where: str) -> types.Split:
    """Return checked rows in the users' form; missing modalities become masks, and hold another row's data."""
    columns, small, there = {}, {}, {}
    for name, values in data.items():
        if name.endswith(".present"):
            small[name] = _mask(values, f"{where} {name!r}")
            continue
        array, there[name] = _column(values, f"{where} {name!r}")
        if labels.is_label(name) and there[name] is not None:
            raise SbmError(f"{where} {name!r} is None or NaN in some rows; expected a class for every row. Fix it.")
        (small if labels.is_label(name) else columns)[name] = array
    lengths = {name: len(array) for name, array in {**columns, **small}.items()}
    if not columns:
        raise SbmError(f"{where} has no modality{', only labels' if small else ''}; expected rows by modality.")
    if len({*lengths.values()}) > 1:
        raise SbmError(f"{where} has {lengths} rows; expected the same number of rows for every modality.")
    for name in columns:
        mask, key = there[name], f"{name}.present"
        own = small.get(key)
        told = own is not None and own.dtype == bool and own.shape == (len(columns[name]),)
        if mask is not None:
            small[key] = mask & own if told else mask
        if told and small[key].any():  # the values of absent rows are never used
            columns[name] = _filled(columns[name], small[key])
    for name, array in small.items():
        if array.dtype.kind == "U" and array.ndim != 1:
            raise SbmError(f"{where} {name!r} has the shape {list(array.shape)}; expected one class per row, [N].")
    words = {name.removeprefix(f"{types.LABEL}."): a for name, a in small.items() if a.dtype.kind == "U"}
    numeric = {name: array for name, array in small.items() if array.dtype.kind != "U"}
    answers, present = arrays.labels_and_masks(numeric, columns, where, next(iter(lengths.values())))
    return types.Split(columns, {**answers, **words}, present)


def _mask(values: Any, where: str) -> np.ndarray:
    try:
        mask = np.asarray(values)
    except ValueError:
        mask = np.empty(())
    if mask.ndim != 1:
        raise SbmError(f"{where} is {values!r:.50}; expected True or False for every row, bool [N].")
    return mask


def _filled(column: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return a column with absent rows replaced by the first present one."""
    if there.all():
        return column
    which = np.where(there, np.arange(len(column)), np.argmax(there))
    return column[which]


def _column(values: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rows as an array, and a presence mask [N], None if all are present.

    A row is missing if it is None or all NaN; the array holds another row there. Rows of numbers of different lengths
    become an object array.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise SbmError(f"{where} is a masked array; give plain rows, and '<modality>.present' to mark missing ones.")
    if hasattr(values, "__array__") and not isinstance(values, np.ndarray):
        values = np.asarray(values)  # of JAX, pandas and others
    single = isinstance(values, (str, bytes)) or (isinstance(values, np.ndarray) and not values.ndim)
    if single or not isinstance(values, (Sequence, np.ndarray)):
        raise SbmError(f"{where} is of type {type(values).__name__}; expected an array or a list of rows.")
    if len(values) == 0:
        raise SbmError(f"{where} has no rows. Give at least one.")
    there = np.ones(len(values), bool)
    if isinstance(values, np.ndarray) and values.dtype != object:
        array = values
    else:
        there = np.array([not _is_nothing(row) for row in values])
        if not there.any():
            raise SbmError(f"{where} has None in all rows. Leave it out.")
        filler = values[int(np.argmax(there))]
        array = stacked([row if given else filler for row, given in zip(values, there, strict=True)], where)
    array = _plain_type(array, where)
    if array.dtype.kind == "f":
        lost = np.isnan(array).reshape(len(array), -1).all(axis=1)
        if lost.any() and not lost.all():
            there &= ~lost
            array = np.where(lost.reshape(-1, *(1,) * (array.ndim - 1)), array[int(np.argmax(there))], array)
        wrong = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if len(wrong):
            raise SbmError(f"{where} has NaN or infinite values in row {wrong[0]}; expected finite ones. Fix it.")
    return array, None if there.all() else there


def _is_nothing(row: Any) -> bool:
    return row is None or (isinstance(row, float) and row != row)


def stacked(rows: list[Any], where: str) -> np.ndarray:
    """Convert a list of rows to an array; rows of numbers of different lengths become an object array.

    Raises:
      SbmError: if the rows have types or shapes that do not fit into an array.
    """
    if len({isinstance(row, str) for row in rows}) > 1:
        raise SbmError(f"{where} mixes strings with other types; expected strings, and None for missing rows.")
    try:
        array = np.array(rows)
        if array.dtype == object:
            odd = next((x for x in array.ravel() if not isinstance(x, (str, numbers.Real, np.bool_))), array.ravel()[0])
            told = f"{where} has a {type(odd).__name__} inside a row, {odd!r:.50}"
            raise SbmError(f"{told}; expected numbers, booleans or strings, and None only for a whole row.")
        return array
    except ValueError as error:
        parts = [np.asarray(row) for row in rows]
        if any(part.ndim != 1 or part.dtype.kind not in "if" for part in parts):
            told = f"{where} has rows of different shapes ({error}); expected equal shapes. Fix the data."
            raise SbmError(told) from error
        ragged = np.empty(len(parts), object)
        ragged[:] = parts
        return ragged


def _plain_type(array: np.ndarray, where: str) -> np.ndarray:
    """Return integers and strings [N, 1] as [N], and floats with 32 or 64 bits."""
    if array.dtype.name in ("bfloat16", "float16"):
        array = array.astype(np.float32)
    elif array.dtype.kind == "f" and array.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufUO":
        advice = "Decode them to str." if array.dtype.kind == "S" else "Convert it."
        raise SbmError(f"{where} is {array.dtype}; expected numbers, booleans or strings. {advice}")
    if array.ndim == 0 or 0 in array.shape:
        raise SbmError(f"{where} has the shape {list(array.shape)}; expected non-empty rows [N, ...].")
    if array.dtype.kind == "U":
        try:
            "".join(array.ravel().tolist()).encode()
        except UnicodeEncodeError as error:
            raise SbmError(f"{where} has a string that is not valid Unicode ({error.reason}). Fix it.") from error
    single = array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "iuU"
    return array[:, 0] if single else array


def _with_numbers(splits: Mapping[str, types.Split]) -> dict[str, types.Split]:
    """Return splits with words as labels replaced by numbers."""
    found = dict(splits)
    for question, known in {**splits["train"].labels}.items():
        answers = {name: split.labels[question] for name, split in splits.items()}
        if len({values.dtype.kind == "U" for values in answers.values()}) > 1:
            raise SbmError(
                f"{labels.array_of(question)} has words in some splits and numbers in others. Use one type in all."
            )
        if known.dtype.kind == "U":
            where = {name: f"{name}: {labels.array_of(question)}" for name in splits}
            for name, numbers in labels.numbers_of_words(answers, where).items():
                found[name] = dataclasses.replace(found[name], labels={**found[name].labels, question: numbers})
    return found


def _divided(split: types.Split, number: int, name: str, rng: np.random.Generator) -> tuple[types.Split, types.Split]:
    """Hold out `number` random rows; return the remaining rows and the held-out ones.

    Test rows are chosen among complete rows. At least one row of every class is left to train on.

    Raises:
      SbmError: if too few rows can be held out.
    """
    complete = _complete(split) if name == "test" else np.arange(len(split))
    candidates = np.setdiff1d(complete, _one_of_each_class(split, rng))
    if len(candidates) < number:
        raise SbmError(
            f"{name} needs {number} of {len(split)} rows, but only {len(candidates)} can be held out: {len(complete)} "
            "have what it needs, and one of each class stays for training. Give more rows, a smaller share, or the "
            f"rows themselves as {name}."
        )
    chosen = np.sort(rng.permutation(candidates)[:number])
    return split.take(np.setdiff1d(np.arange(len(split)), chosen)), split.take(chosen)


def one_text_each(split: types.Split, where: str) -> types.Split:
    """Turn each row with K texts of a modality into K rows with one text each, which share their other data.

    Raises:
      SbmError: if modalities have different numbers of texts per row.
    """
    several = {name: column.shape[1] for name, column in split.data.items() if has_several_texts(column)}
    if not several:
        return split
    if len({*several.values()}) > 1:
        raise SbmError(f"{where} has {several} texts per row; expected the same number for each, or one.")
    number = next(iter(several.values()))
    again = np.repeat(np.arange(len(split)), number)
    data = {
        name: column.reshape(-1) if name in several else Repeated(column, again) for name, column in split.data.items()
    }
    answers, present = jax.tree.map(lambda array: array[again], (split.labels, split.present))
    return types.Split(data, answers, present)


def has_several_texts(column: np.ndarray) -> bool:
    """Return whether rows have several texts each: strings [N, K]."""
    return column.dtype.kind == "U" and column.ndim == 2


def _one_of_each_class(split: types.Split, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of a random row for each label, and for each value of a modality that holds classes."""
    answers = list(split.labels.values())
    for name, column in split.data.items():
        if column.ndim == 1 and column.dtype.kind in "Uiu" and is_class(column):
            there = np.ones(len(split), bool) if split.present is None else split.present[name]
            answers.append(np.where(there, column, column[int(np.argmax(there))]))
    order = rng.permutation(len(split))
    return np.concatenate([np.empty(0, int), *(order[np.unique(a[order], return_index=True)[1]] for a in answers)])


def is_class(rows: np.ndarray) -> bool:
    """Return whether strings or integers [N] have few enough distinct values to be classes."""
    values = np.unique(rows)
    most, each = MOST_NUMBERED, ROWS_PER_CLASS
    if rows.dtype.kind == "U":
        most, each = MOST_CLASSES, ROWS_PER_CLASS if any(" " in value.strip() for value in values.tolist()) else 2
    return 2 <= len(values) <= min(most, len(rows) // each)
