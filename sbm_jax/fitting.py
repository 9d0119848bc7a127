"""Training on your own data in three lines: `sbm_jax.fit`."""

import dataclasses
import hashlib
import inspect
import numbers
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sbm_jax import experiment, parallel, presets, types
from sbm_jax.data import arrays, labels
from sbm_jax.data.memory import Columns, has_several_texts, make_splits, one_text_each
from sbm_jax.errors import SbmError, require
from sbm_jax.experiment_config import ExperimentConfig, apply_changes, complete, parse_config
from sbm_jax.kinds import KINDS, Guess, guess
from sbm_jax.trained import TrainedSystem, load


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
    """Train on your own data, evaluate the result, write a report, and return the trained system.

    The kind of each modality is guessed from type, shape and values, and the guesses are printed. Called again with the
    same arguments, `fit` resumes where it was interrupted; `sbm_jax.load` returns the system later.

        model = sbm_jax.fit({"photo": photos, "mask": masks, "caption": captions}, "runs/mine")
        model.generate({"caption": ["a small red bird"]}, targets=["photo"], num_samples=4)

    Args:
      data: {modality: N rows}: an array [N, ...], or a list with None where a row lacks the modality. Images are uint8
        [N, H, W, C] or [N, H, W]; tags, masks and one-hot classes are 0 and 1 or bool; numbers are floats; sentences
        and class names are strings [N]; with strings [N, K], each row has K sentences and stands for K rows with one
        each. Optional keys are ``"label"``, the class of each row, by which the samples are judged, or
        ``"label.<question>"`` for one of several questions; and ``"<modality>.present"``, bool [N], True where a row
        has the modality. Alternatively the config of an experiment, as a file of `configs/` returns it; then only
        `workdir` may be given with it.
      workdir: where checkpoints, results and the report are kept.
      validation: held-out rows in the form of `data`, or the fraction of the rows of `data` to hold out.
      test: the same for the rows on which the system is judged. These have all modalities; a fraction refers to the
        rows that do. If rows belong together, such as several images of one person, a random split would separate them:
        pass rows of other people here.
      modalities: known properties of modalities, by name: fields of `types.Modality`, and ``kind``, a key of
        `kinds.KINDS`, with its ``options``.
      preset: compute budget, one of `presets.PRESETS`.
      changes: new values of the config by dotted path, such as ``{"score.training.num_steps": 2000}``.
      seed: the seed of every random draw.

    Raises:
      SbmError: on anything that the user can fix, before anything is trained.
    """
    if isinstance(data, ConfigDict):
        given = {"validation": validation, "test": test, "modalities": modalities, "preset": preset}
        return _fit_config(data, workdir, {**given, "changes": changes, "seed": seed})
    _check_arguments(data, workdir, modalities, changes, seed)
    splits = make_splits(data, {"validation": validation, "test": test}, int(seed))
    splits = {name: _with_axis(split, modalities or {}) for name, split in splits.items()}
    guesses = _guesses(splits, modalities or {})
    dataset, judged_by = _dataset(splits, guesses)
    config = _config(guesses, dataset, preset, changes or {}, int(seed))
    if parallel.is_main():
        _tell(guesses, dataset, preset, judged_by)
    experiment.run(config, workdir, dataset=dataset, command=f"sbm_jax.fit(data, {os.fspath(workdir)!r}, ...)")
    return load(workdir)


def _fit_config(config: ConfigDict, workdir: str | os.PathLike[str], others: Mapping[str, Any]) -> TrainedSystem:
    defaults = inspect.signature(fit).parameters
    for name, value in others.items():
        default = defaults[name].default
        if value is not default and not (isinstance(value, (int, float, str)) and value == default):
            raise SbmError(
                f"{name} is given together with a config, which has all settings. Leave it out, or change the config."
            )
    _check_path(workdir)
    config = config.copy_and_resolve_references()
    complete(config)
    experiment.run(parse_config(config), workdir, command=f"sbm_jax.fit(config, {os.fspath(workdir)!r})")
    return load(workdir)


def _check_arguments(data: Any, workdir: Any, modalities: Any, changes: Any, seed: Any) -> None:
    _check_path(workdir)
    if not isinstance(data, Mapping):
        raise SbmError(f"data is of type {type(data).__name__}; expected a dictionary of rows by modality.")
    for name in data:
        require(isinstance(name, str), "a key of data", name, "the name of a modality, a string")
    own = modalities is None or (
        isinstance(modalities, Mapping) and all(isinstance(fields, Mapping) for fields in modalities.values())
    )
    require(own, "modalities", modalities, "a dictionary for each modality, such as {'photo': {'kind': 'image'}}")
    named = changes is None or (isinstance(changes, Mapping) and all(isinstance(path, str) for path in changes))
    require(named, "changes", changes, "new values by path, such as {'autoencoder.beta': 2.0}")
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool) and 0 <= int(seed) < 2**32
    require(whole, "seed", seed, "an integer from 0 to 2**32 - 1")


def _check_path(workdir: Any) -> None:
    named = isinstance(workdir, (str, os.PathLike)) and "\0" not in os.fspath(workdir)
    require(named, "workdir", workdir, "the path of a directory")
    path = pathlib.Path(workdir).absolute()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    require(nearest.is_dir(), "workdir", os.fspath(workdir), f"the path of a directory; {nearest} is a file")


# MARK: Kinds and labels


def _with_axis(split: types.Split, given: Mapping[str, Mapping[str, Any]]) -> types.Split:
    """Reshape rows [N] to [N, 1] where a modality is declared to have the shape (1,)."""
    alone = [name for name, fields in given.items() if "kind" not in fields and fields.get("shape") in ((1,), [1])]
    own = {name: column[:, None] for name, column in split.data.items() if name in alone and column.ndim == 1}
    return dataclasses.replace(split, data={**split.data, **own})


def _guesses(splits: Mapping[str, types.Split], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Guess]:
    """Guess the kind of each modality from its training rows."""
    train = splits["train"]
    for name in given:
        if name not in train.data:
            raise SbmError(f"modalities has {name!r}; expected some of {', '.join(train.data)}, which data has.")
    found = {}
    for name, rows in train.data.items():
        there, *held_out = (_there(splits[part], name) for part in ("train", "validation", "test"))
        if not len(there):
            raise SbmError(f"no training row has modality {name!r}; add some, or leave it out.")
        held_out = [part for part in held_out if len(part)]
        if has_several_texts(rows):
            there, *held_out = (texts.reshape(-1) for texts in (there, *held_out))
        fields = dict(given.get(name, {}))
        if has_several_texts(rows):
            fields.setdefault("kind", "text")
        found[name] = guess(name, there, fields, held_out)
    return found


def _there(split: types.Split, name: str) -> np.ndarray:
    """Return a modality's rows in a split, without those that lack it."""
    return split.data[name] if split.present is None else split.data[name][split.present[name]]


def _dataset(splits: Mapping[str, types.Split], guesses: Mapping[str, Guess]) -> tuple[types.Dataset, str]:
    """Return the data set, and a description of its labels.

    Without labels, the classes of a modality become the labels if it is the only class that no row lacks.
    """
    digests = {name: _digest(split) for name, split in splits.items()}
    splits = {name: one_text_each(_as_kinds(split, guesses), name) for name, split in splits.items()}
    train = splits["train"]
    masks = [split.present for split in splits.values() if split.present is not None]
    whole = [name for name in guesses if all(mask[name].all() for mask in masks)]
    classes = [name for name in whole if guesses[name].is_class]
    told = "as given" if train.labels else "none, so that coherence cannot be measured"
    if not train.labels and len(classes) == 1:
        told = f"those of {classes[0]!r}"
        splits = _labelled(splits, classes[0], guesses[classes[0]])
    paths = {name: pathlib.Path(name) for name in splits}
    numbered = labels.numbered(splits, labels.classes_of(splits, paths), paths["train"], {"digests": digests})
    return numbered._replace(settings={"name": "memory", **numbered.settings}), told


def _as_kinds(split: types.Split, guesses: Mapping[str, Guess]) -> types.Split:
    """Convert uint8 values that are not pixels to int32: elsewhere uint8 stands for value / 255."""
    data = {
        name: column.astype(np.int32)
        if column.dtype == np.uint8 and guesses[name].kind not in ("image", "binary", "declared")
        else column
        for name, column in split.data.items()
    }
    return dataclasses.replace(split, data=data)


def _labelled(splits: Mapping[str, types.Split], name: str, one: Guess) -> dict[str, types.Split]:
    """Return splits whose labels are the classes of a modality."""
    classes = {part: one.classes(name, split.data[name], f"{part} {name!r}") for part, split in splits.items()}
    for part, numbers_of_rows in classes.items():
        strange = np.flatnonzero(~np.isin(numbers_of_rows, classes["train"]))
        if len(strange):
            value = np.asarray(splits[part].data[name])[strange[0]]
            raise SbmError(f"{part} {name!r} has {value}, a class that no training row has. Add such rows, or drop it.")
    return {part: dataclasses.replace(split, labels={types.LABEL: classes[part]}) for part, split in splits.items()}


def _digest(split: types.Split) -> str:
    """Return a digest of the content of a split."""
    digest = hashlib.sha256()
    for name, array in sorted({**split.data, **arrays.small_arrays(split)}.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        parts = array if array.dtype == object else [array]
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _config(
    guesses: Mapping[str, Guess], dataset: types.Dataset, preset: str, changes: Mapping[str, Any], seed: int
) -> ExperimentConfig:
    rows = presets.Rows(len(dataset.train), len(dataset.test))
    config = presets.make_config(guesses, rows, preset, bool(dataset.num_classes), seed)
    config.data.name = "sbm_jax.data.memory:DATASET"
    complete(config)
    flat = _flat(changes, config)
    for path in flat:
        if path.partition(".")[0] in ("data", "modalities") and path != "data.missing":
            raise SbmError(f"changes has {path!r}; use the arguments data and modalities instead.")
    return apply_changes(parse_config(config), flat)


def _flat(changes: Mapping[str, Any], config: ConfigDict, group: str = "") -> dict[str, Any]:
    """Flatten changes to {path: value}, down to the fields of the config's groups.

    Only metrics are replaced as a whole, because their group also says which metrics there are.
    """
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        path, found = f"{group}{name}", config
        for part in path.split("."):
            found = found.get(part) if isinstance(found, ConfigDict) else None
        divisible = isinstance(value, Mapping) and isinstance(found, ConfigDict)
        whole = not divisible or path.startswith("evaluation.metrics")
        flat |= {path: value} if whole else _flat(value, config, f"{path}.")
    return flat


def _tell(guesses: Mapping[str, Guess], dataset: types.Dataset, preset: str, judged_by: str) -> None:
    """Print the guesses and the sizes of the data."""
    sizes = ", ".join(f"{len(getattr(dataset, name)):,} for {name}" for name in ("train", "validation", "test"))
    print(f"fit: preset {preset!r}, rows: {sizes}")
    for name, one in guesses.items():
        has = None if dataset.train.present is None else dataset.train.present[name]
        share = "" if has is None or has.all() else f"; {has.mean():.0%} of the training rows have it"
        print(f"  {name}: {one.told} {list(one.fields['shape'])}{share}")
    if dataset.train.present is not None:
        whole = np.all(list(dataset.train.present.values()), axis=0)
        print(f"  {whole.sum():,} of {len(whole):,} training rows have all modalities")
    print(f"  labels: {judged_by}")
    name = next(iter(guesses))
    print(
        f"To correct a guess, pass modalities={{{name!r}: {{'kind': ...}}}} with one of {', '.join(KINDS)}.", flush=True
    )
