"""Data sets: rows of named modalities in three splits."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sbm_jax import types
from sbm_jax.data.arrays import ArraysConfig, load_arrays
from sbm_jax.data.polymnist import PolyMnistConfig, load_polymnist
from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, require, unknown


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set of an experiment.

    Attributes:
      name: which one, a key of `LOADERS`; only the options of that one matter.
      polymnist: see `PolyMnistConfig`.
      arrays: see `ArraysConfig`.
      missing: the probability that a modality of a training or validation row is hidden, besides those that the data
        lack; one of each row never is.
    """

    name: str = "polymnist"
    polymnist: PolyMnistConfig = dataclasses.field(default_factory=PolyMnistConfig)
    arrays: ArraysConfig = dataclasses.field(default_factory=ArraysConfig)
    missing: float = 0.0

    def __post_init__(self):
        require(0 <= self.missing < 1, "data.missing", self.missing, "0 (nothing) to less than 1")


LOADERS: dict[str, Callable[[Any, pathlib.Path], types.Dataset]] = {
    "polymnist": load_polymnist,
    "arrays": load_arrays,
}


def load(config: DataConfig, cache_dir: pathlib.Path) -> types.Dataset:
    """Return a data set.

    Args:
      config: which one, and its options.
      cache_dir: where prepared data are kept; used again by runs that ask for the same.

    Raises:
      SbmError: on an unknown name, or data that are missing, unreadable or not as declared.
    """
    if config.name not in LOADERS:
        raise unknown("data set", config.name, LOADERS)
    dataset = LOADERS[config.name](getattr(config, config.name), cache_dir)
    dataset = dataset._replace(settings={"name": config.name, **dataset.settings})
    if not config.missing:
        return dataset
    hidden = {name: hide(getattr(dataset, name), config.missing, i) for i, name in enumerate(("train", "validation"))}
    return dataset._replace(**hidden, settings=dataset.settings | {"missing": config.missing})


def hide(split: types.Split, share: float, seed: int) -> types.Split:
    """Return the rows without a random share of their modalities; each keeps one of those that it has.

    Args:
      split: the rows.
      share: the probability that a modality is missing.
      seed: of the choice.
    """
    rng, names = np.random.default_rng(seed), list(split.data)
    shape = (len(split), len(names))
    had = np.ones(shape, bool) if split.present is None else np.stack([split.present[n] for n in names], axis=1)
    kept = np.argmax(np.where(had, rng.random(shape), -1.0), axis=1)
    present = had & ((rng.random(shape) >= share) | (np.arange(len(names)) == kept[:, None]))
    return dataclasses.replace(split, present=dict(zip(names, present.T, strict=True)))


def check(dataset: types.Dataset, modalities: Sequence[types.Modality]) -> None:
    """Check that the data are what the modalities declare.

    Args:
      dataset: the data.
      modalities: names, shapes and likelihoods.

    Raises:
      SbmError: naming the split and the modality; see `check_data`. Also if one is missing, or if its rows
        are not as many as those of the others.
    """
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        if not split.data:
            expected = [modality.name for modality in modalities]
            raise SbmError(f"the {name} split has no modality; expected {expected}. Add data.")
        for modality in modalities:
            if modality.name not in split.data:
                raise unknown(f"modality in the {name} split:", modality.name, split.data)
            check_data(f"{name}/{modality.name}", split.data[modality.name], modality)
            if split.present is not None and not split.present[modality.name].any():
                raise SbmError(f"no row of the {name} split has modality {modality.name!r}; add some, or leave it out.")
        lengths = {key: len(rows) for key, rows in split.data.items()}
        lengths |= {"label": len(split.labels)} if split.labels is not None else {}
        if len(set(lengths.values())) != 1:
            raise SbmError(f"the {name} split has {lengths} rows; expected as many of each. Mend the data.")


def check_data(name: str, rows: np.ndarray, modality: types.Modality) -> np.ndarray:
    """Check rows of one modality and return them as uint8, int32 or float32 [N, *shape].

    Args:
      name: what to call them in messages.
      rows: real numbers [N, *shape].
      modality: its shape and likelihood.

    Raises:
      SbmError: if there are no rows, or they have another shape, are no numbers, are not finite, or leave
        [0, 1] under a likelihood of such values.
    """
    given = rows = np.asarray(rows)
    where = f"data {name!r}"
    if rows.shape[1:] != modality.shape or rows.ndim == 0 or len(rows) == 0:
        raise SbmError(
            f"{where} has the shape {list(rows.shape)}; expected {['N', *modality.shape]} with N of 1 or "
            f"more, as modality {modality.name!r} declares. Mend the data or the declared shape."
        )
    if rows.dtype.kind not in "uifb":
        raise SbmError(f"{where} has the type {rows.dtype}; expected uint8, integers or floats. Convert it.")
    unit = LIKELIHOODS[modality.likelihood].bounded if modality.likelihood in LIKELIHOODS else False
    if rows.dtype == np.uint8:
        if unit and rows.max() == 1:
            raise SbmError(
                f"{where} is uint8 with no value above 1; uint8 stands for value / 255. Convert it to float."
            )
        return rows
    with np.errstate(over="ignore"):  # what float32 can not hold becomes infinite, and is refused
        rows = rows.astype(np.int32 if rows.dtype.kind in "ui" else np.float32, copy=False)
    if rows.dtype == np.int32 and not np.array_equal(rows, given):
        raise SbmError(f"{where} has integers that int32 can not hold. Convert it to float.")
    if not np.isfinite(rows).all():
        raise SbmError(f"{where} has NaN or infinite values; expected finite ones. Mend the data.")
    bounds = modality.bounds or ((0.0, 1.0) if unit else (-np.inf, np.inf))
    if rows.min() < bounds[0] or rows.max() > bounds[1]:
        raise SbmError(
            f"{where} has values from {rows.min():g} to {rows.max():g}; modality {modality.name!r} with the "
            f"{modality.likelihood} likelihood expects {bounds[0]:g} to {bounds[1]:g} (or uint8, which stands for 0 to "
            "1). Rescale the data, or change the modality's bounds or likelihood."
        )
    return rows
