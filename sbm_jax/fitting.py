"""Own data in three lines: `sbm_jax.fit`."""

import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sbm_jax import experiment, presets, types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import arrays, labels
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require
from sbm_jax.experiment_config import ExperimentConfig, apply_changes, complete, parse_config
from sbm_jax.kinds import Guess, guess, is_class
from sbm_jax.rows import Repeated
from sbm_jax.trained import TrainedSystem, load

logger = logging.getLogger(__name__)

Columns = Mapping[str, Any]


def fit(
    data: Columns | ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    validation: Columns | float = 0.1,
    test: Columns | float = 0.1,
    modalities: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str = "small",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> TrainedSystem:
    """Train on data of one's own, judge what was trained, write a report, and return the trained system.

    What each modality is gets guessed from its type, shape and values, and printed. Called again with the same
    arguments it goes on where it was interrupted; `sbm_jax.load` returns the system later.

        model = sbm_jax.fit({"photo": photos, "mask": masks, "caption": captions}, "runs/mine")
        model.generate({"caption": ["a small red bird"]}, targets=["photo"], num_samples=4)

    Args:
      data: {modality: N rows}: an array [N, ...], or a list with None where a row lacks the modality. Images are uint8
        [N, H, W, C] or [N, H, W]; tags, masks and one-hot classes are 0 and 1 or bool; numbers are floats; sentences
        and names of classes are strings [N], or [N, K] with K sentences for each row, which then stands for K rows.
        Beside them may be ``"label"``, the class of each row, by which the samples are judged, or
        ``"label.<question>"``, one of several; and ``"<modality>.present"``, bool [N]. Or the config of an experiment,
        as a file of `configs/` returns it, beside which only `workdir` is given.
      workdir: where everything is kept; see README.
      validation: held-out rows, as `data`, or the share of the rows of `data` to hold out.
      test: the same for the rows that are judged by, which have all modalities. Rows that belong together, such as
        several captions of one picture, should not be divided by chance: give such rows here.
      modalities: what is known of modalities, by name: fields of `types.Modality`, and ``kind``, a key of
        `kinds.KINDS`, with its ``options``.
      preset: how much is spent, one of `presets.PRESETS`.
      changes: new values of the config by dotted path, such as ``{"score.training.num_steps": 2000}``.
      seed: of every random draw.

    Raises:
      SbmError: on anything that the user can mend, before anything is trained.
    """
    if isinstance(data, ConfigDict):
        return _fit_config(data, workdir)
    if not isinstance(data, Mapping):
        raise SbmError(f"data is of type {type(data).__name__}; expected a dictionary of rows by modality.")
    splits = _splits(data, {"validation": validation, "test": test}, seed)
    guesses = _guesses(splits, modalities or {})
    dataset = _dataset(splits, guesses)
    config = _config(guesses, dataset, preset, changes or {}, seed)
    _tell(guesses, dataset, preset)
    experiment.run(config, workdir, dataset=dataset)
    return load(workdir)


def _fit_config(config: ConfigDict, workdir: str | os.PathLike[str]) -> TrainedSystem:
    config = config.copy_and_resolve_references()
    complete(config)
    experiment.run(parse_config(config), workdir)
    return load(workdir)


@checked_dataclass
class MemoryConfig:
    """Rows that were given to `fit`, which no file holds."""


def _refuse(config: MemoryConfig, cache_dir: pathlib.Path, names: Sequence[str] | None) -> types.Dataset:
    del config, cache_dir, names
    raise SbmError("this experiment was trained on rows in memory. Call sbm_jax.fit again with them.")


DATASET = Loader(MemoryConfig, _refuse)

# MARK: Rows


def _splits(data: Columns, held_out: Mapping[str, Columns | float], seed: int) -> dict[str, types.Split]:
    """Return the rows of the three splits, with labels as they are."""
    splits = {"train": _split(data, "data")}
    rng = np.random.default_rng(seed)
    for name, given in reversed(held_out.items()):  # test rows first, which must be complete
        if isinstance(given, Mapping):
            splits[name] = _split(given, name)
        else:
            share = _share(name, given)
            splits["train"], splits[name] = _divided(splits["train"], share, name, rng)
    test = splits["test"]
    if test.present is not None:
        arrays.require_complete(test, pathlib.Path("test"))
        splits["test"] = dataclasses.replace(test, present=None)
    expected = set(splits["train"].data), set(splits["train"].labels)
    for name, split in splits.items():
        if (set(split.data), set(split.labels)) != expected:
            found = sorted([*split.data, *split.labels])
            raise SbmError(f"{name} has {found}; expected what data has: {sorted([*expected[0], *expected[1]])}.")
    return splits


def _share(name: str, given: Any) -> float:
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    require(number and 0 < given < 1, name, given, "rows by modality, or a share of the rows between 0 and 1")
    return float(given)


def _split(data: Columns, where: str) -> types.Split:
    """Return rows as arrays, checked to fit together, without those of modalities that a row lacks."""
    columns: dict[str, np.ndarray] = {}
    for name, values in data.items():
        require(isinstance(name, str), f"{where}: name of a modality", name, "a string")
        columns[name], there = _column(values, f"{where} {name!r}")
        if there is not None and f"{name}.present" not in data:
            columns[f"{name}.present"] = there
    for name in [name for name in columns if labels.is_label(name)]:
        if columns[name].dtype.kind == "U":
            classes, columns[name] = np.unique(columns[name], return_inverse=True)
            logger.info("%s: the classes 0, 1, ... are %s", name, ", ".join(classes[:20]))
    split = arrays.as_split(columns, where)
    for question, answers in split.labels.items():
        labels.check_classes(question, np.unique(answers), answers, pathlib.Path(where))
    return split


def _column(values: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rows as an array, and which there are: None where all are.

    A row is lacking where it is None, or NaN in all its entries; the array has another row there.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise SbmError(
            f"{where} is a masked array; give plain rows, and '<modality>.present' for those that there are."
        )
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray, jax.Array)):
        raise SbmError(f"{where} is of type {type(values).__name__}; expected an array or a list of rows.")
    if len(values) == 0:
        raise SbmError(f"{where} has no rows.")
    there = np.ones(len(values), bool)
    if not isinstance(values, jax.Array) and (not isinstance(values, np.ndarray) or values.dtype == object):
        there = np.array([row is not None for row in values])
        if not there.any():
            raise SbmError(f"{where} has None in all rows. Leave it out.")
        filler = values[int(np.argmax(there))]
        values = [filler if row is None else row for row in values]
        if isinstance(filler, str) and not all(isinstance(row, str) for row in values):
            raise SbmError(f"{where} has strings and other things; expected strings, and None where there is none.")
    try:
        array = np.array(values) if isinstance(values, list) else np.asarray(values)
    except ValueError as error:
        raise SbmError(
            f"{where} has rows of different shapes ({error}); expected equal ones. Mend the data."
        ) from error
    if array.dtype.kind == "f":
        lost = np.isnan(array).reshape(len(array), -1).all(axis=1)
        if lost.any() and not lost.all():
            there &= ~lost
            array = np.where(lost.reshape(-1, *(1,) * (array.ndim - 1)), array[int(np.argmax(there))], array)
    return array, None if there.all() else there


def _divided(split: types.Split, share: float, name: str, rng: np.random.Generator) -> tuple[types.Split, types.Split]:
    """Return the rows without a random share of them, and these.

    Test rows are taken from those that are complete. Of every class some row is left to train on.
    """
    number = max(1, round(share * len(split)))
    complete = np.arange(len(split))
    if name == "test" and split.present is not None:
        complete = np.flatnonzero(np.all(list(split.present.values()), axis=0))
    candidates = np.setdiff1d(complete, _one_of_each_class(split, rng))
    if len(candidates) < number:
        raise SbmError(
            f"{name} needs {number} of {len(split)} rows, but only {len(candidates)} can be held out: {len(complete)} "
            "have what it needs, and one of each class stays for training. Give more rows, a smaller share, or the "
            f"rows themselves as {name}."
        )
    chosen = np.sort(rng.permutation(candidates)[:number])
    return split.take(np.setdiff1d(np.arange(len(split)), chosen)), split.take(chosen)


def _one_text_each(split: types.Split, where: str) -> types.Split:
    """Return rows with one text each: a row with K texts of a modality becomes K rows, whose other data are shared.

    Raises:
      SbmError: if several modalities have texts of different numbers.
    """
    several = {name: column.shape[1] for name, column in split.data.items() if _has_several_texts(column)}
    if not several:
        return split
    if len({*several.values()}) > 1:
        raise SbmError(f"{where} has {several} texts a row; expected as many of each, or one.")
    number = next(iter(several.values()))
    again = np.repeat(np.arange(len(split)), number)
    data = {
        name: column.reshape(-1) if name in several else Repeated(column, again) for name, column in split.data.items()
    }
    answers, present = jax.tree.map(lambda array: array[again], (split.labels, split.present))
    return types.Split(data, answers, present)


def _has_several_texts(column: np.ndarray) -> bool:
    return column.dtype.kind == "U" and column.ndim == 2


def _one_of_each_class(split: types.Split, rng: np.random.Generator) -> np.ndarray:
    """Return a random row of each label, and of each value of a modality that is strings or integers, one a row."""
    answers = list(split.labels.values())
    for name, column in split.data.items():
        if column.ndim == 1 and column.dtype.kind in "Ui" and is_class(column):
            there = np.ones(len(split), bool) if split.present is None else split.present[name]
            answers.append(np.where(there, column, column[int(np.argmax(there))]))
    order = rng.permutation(len(split))
    return np.concatenate([np.empty(0, int), *(order[np.unique(a[order], return_index=True)[1]] for a in answers)])


# MARK: What they are


def _guesses(splits: Mapping[str, types.Split], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Guess]:
    """Return what each modality is, by its training rows."""
    train = splits["train"]
    for name in given:
        if name not in train.data:
            raise SbmError(f"modalities has {name!r}; expected some of {', '.join(train.data)}, which data has.")
    found = {}
    for name, rows in train.data.items():
        there = rows if train.present is None else rows[train.present[name]]
        held_out = [splits["validation"].data[name], splits["test"].data[name]]
        if _has_several_texts(rows):
            there, *held_out = (texts.reshape(-1) for texts in (there, *held_out))
        if not len(there):
            raise SbmError(f"no training row has modality {name!r}; add some, or leave it out.")
        fields = given.get(name, {})
        if not isinstance(fields, Mapping):
            raise SbmError(f"modalities[{name!r}] is {fields!r}; expected a dictionary, such as {{'kind': 'image'}}.")
        found[name] = guess(name, there, fields, held_out)
    return found


def _dataset(splits: Mapping[str, types.Split], guesses: Mapping[str, Guess]) -> types.Dataset:
    """Return the data set. Where there are no labels and one modality is a class, its classes are the labels."""
    digests = {name: _digest(split) for name, split in splits.items()}
    splits = {name: _one_text_each(split, name) for name, split in splits.items()}
    classes = [name for name in guesses if _is_class(guesses[name])]
    if not splits["train"].labels and len(classes) == 1:
        name = classes[0]
        logger.info("there are no labels: the classes of %r are taken for them", name)
        known = None
        if guesses[name].kind == "category":
            known = np.sort(guesses[name].fields["format"]["options"]["classes"])
        splits = {
            split: dataclasses.replace(rows, labels={types.LABEL: _classes(rows.data[name], known)})
            for split, rows in splits.items()
        }
    paths = {name: pathlib.Path(name) for name in splits}
    numbered = labels.numbered(splits, labels.classes_of(splits, paths), paths["train"], {"digests": digests})
    return numbered._replace(settings={"name": "memory", **numbered.settings})


def _is_class(one: Guess) -> bool:
    return one.kind == "category" or (one.kind == "binary" and one.fields["likelihood"] == "categorical")


def _classes(rows: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Return the number of each row's class, int [N], of names or numbers in order of `known`, or one-hot vectors."""
    return np.argmax(rows, axis=-1) if known is None else np.searchsorted(known, rows)


def _digest(split: types.Split) -> str:
    """Return a digest of the content of rows."""
    digest = hashlib.sha256()
    for name, array in sorted({**split.data, **arrays.small_arrays(split)}.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _config(
    guesses: Mapping[str, Guess], dataset: types.Dataset, preset: str, changes: Mapping[str, Any], seed: int
) -> ExperimentConfig:
    rows = presets.Rows(len(dataset.train), len(dataset.test))
    config = presets.make_config(guesses, rows, preset, bool(dataset.num_classes), seed)
    config.data.name = f"{__name__}:DATASET"
    complete(config)
    return apply_changes(parse_config(config), changes)


def _tell(guesses: Mapping[str, Guess], dataset: types.Dataset, preset: str) -> None:
    """Print what the data were taken for."""
    sizes = ", ".join(f"{len(getattr(dataset, name)):,} for {name}" for name in ("train", "validation", "test"))
    print(f"fit: preset {preset!r}, rows: {sizes}")
    for name, one in guesses.items():
        lacking = dataset.train.present is not None and not dataset.train.present[name].all()
        share = f"; {dataset.train.present[name].mean():.0%} of the training rows have it" if lacking else ""
        print(f"  {name}: {one.told}, {list(one.fields['shape'])}{share}")
    questions = ", ".join(f"{name} ({number} classes)" for name, number in dataset.num_classes.items())
    print(f"  labels: {questions or 'none, so that coherence can not be measured'}")
    print("  If one is taken for something else, say so: fit(..., modalities={name: {'kind': ...}}).", flush=True)
