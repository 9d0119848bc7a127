"""Data sets: rows of named modalities in three splits, train, validation and test."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from sbm_jax import types
from sbm_jax.config import build, checked_dataclass
from sbm_jax.data import arrays, celebamask_hq, cub, folders, grid, mhd, paired_digits, polymnist, records, video_files
from sbm_jax.data.arrays import ArraysConfig
from sbm_jax.data.celebamask_hq import CelebaMaskHqConfig
from sbm_jax.data.checks import check, check_data
from sbm_jax.data.cub import CubConfig
from sbm_jax.data.folders import FoldersConfig
from sbm_jax.data.grid import GridConfig
from sbm_jax.data.loader import Loader
from sbm_jax.data.mhd import MhdConfig
from sbm_jax.data.paired_digits import PairedDigitsConfig
from sbm_jax.data.polymnist import PolyMnistConfig
from sbm_jax.data.records import RecordsConfig
from sbm_jax.data.video_files import VideoFilesConfig
from sbm_jax.errors import SbmError, require
from sbm_jax.registry import find

__all__ = ["DATASETS", "DataConfig", "check", "check_data", "find_loader", "hide", "load", "thinned", "with_missing"]

DATASETS: dict[str, Loader] = {
    "polymnist": polymnist.DATASET,
    "arrays": arrays.DATASET,
    "folders": folders.DATASET,
    "records": records.DATASET,
    "digits": paired_digits.DATASET,
    "mhd": mhd.DATASET,
    "celebamask_hq": celebamask_hq.DATASET,
    "cub": cub.DATASET,
    "grid": grid.DATASET,
    "video_files": video_files.DATASET,
}


@checked_dataclass
class DataConfig:
    """The data set of an experiment.

    Attributes:
      name: a key of `DATASETS`, or ``"package.module:DATASET"``, a `Loader` of another package.
      polymnist: see `PolyMnistConfig`; options of data sets other than `name` have no effect.
      arrays: see `ArraysConfig`.
      folders: see `FoldersConfig`.
      records: see `RecordsConfig`.
      digits: see `PairedDigitsConfig`.
      mhd: see `MhdConfig`.
      celebamask_hq: see `CelebaMaskHqConfig`.
      cub: see `CubConfig`.
      grid: see `GridConfig`.
      video_files: see `VideoFilesConfig`.
      options: options of a data set of another package.
      complete: drop training and validation rows that lack a modality; variations may set it.
      missing: the probability of hiding each modality of a training or validation row, in addition to those that the
        data lack; one modality of each row is always kept. Variations may set it.
    """

    name: str = "polymnist"
    polymnist: PolyMnistConfig = dataclasses.field(default_factory=PolyMnistConfig)
    arrays: ArraysConfig = dataclasses.field(default_factory=ArraysConfig)
    folders: FoldersConfig = dataclasses.field(default_factory=FoldersConfig)
    records: RecordsConfig = dataclasses.field(default_factory=RecordsConfig)
    digits: PairedDigitsConfig = dataclasses.field(default_factory=PairedDigitsConfig)
    mhd: MhdConfig = dataclasses.field(default_factory=MhdConfig)
    celebamask_hq: CelebaMaskHqConfig = dataclasses.field(default_factory=CelebaMaskHqConfig)
    cub: CubConfig = dataclasses.field(default_factory=CubConfig)
    grid: GridConfig = dataclasses.field(default_factory=GridConfig)
    video_files: VideoFilesConfig = dataclasses.field(default_factory=VideoFilesConfig)
    options: dict = dataclasses.field(default_factory=dict)
    complete: bool = False
    missing: float = 0.0

    def __post_init__(self):
        require(0 <= self.missing < 1, "data.missing", self.missing, "0 (nothing) to less than 1")


def find_loader(name: str) -> Loader:
    """Return the loader that a config names.

    Raises:
      SbmError: if there is none of that name.
    """
    return find("data set", name, DATASETS, Loader)


def load(config: DataConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None) -> types.Dataset:
    """Load a data set.

    Args:
      config: the data set and its options.
      cache_dir: directory of prepared data, reused by runs with the same options.
      names: names of the modalities to read; None for all.

    Raises:
      SbmError: if a name is unknown, or the data are missing, unreadable or not as declared.
    """
    loader = find_loader(config.name)
    if config.name in DATASETS:
        options = getattr(config, config.name)
    else:
        options = build(loader.options, config.options, "data.options")
    dataset = loader.load(options, cache_dir, names)
    return dataset._replace(settings={"name": config.name, **dataset.settings})


def thinned(dataset: types.Dataset, config: DataConfig) -> types.Dataset:
    """Return a data set without the training and validation rows and modalities that a config leaves out.

    Raises:
      SbmError: if rows on disk, or all rows, would be left out.
    """
    return with_missing(only_complete(dataset) if config.complete else dataset, config.missing)


def only_complete(dataset: types.Dataset) -> types.Dataset:
    """Return a data set without the training and validation rows that lack a modality.

    Raises:
      SbmError: if rows on disk, or all rows, would be left out.
    """
    kept = {}
    for name in ("train", "validation"):
        split = getattr(dataset, name)
        if split.present is None:
            continue
        there = split.having(list(split.data))
        rows = np.flatnonzero(there)
        if there.all():
            continue
        if isinstance(split, records.RecordSplit):
            raise SbmError(
                "data.complete can only leave out rows in memory. Write the complete rows to files of their own."
            )
        if not len(rows):
            raise SbmError(f"no row of the {name} split has all modalities, which data.complete requires. Add some.")
        kept[name] = dataclasses.replace(split.take(rows), present=None)
    return dataset._replace(**kept, settings=dataset.settings | {"complete": True}) if kept else dataset


def with_missing(dataset: types.Dataset, share: float) -> types.Dataset:
    """Hide a random share of the modalities of training and validation rows; see `hide`."""
    if not share:
        return dataset
    hidden = {name: hide(getattr(dataset, name), share, i) for i, name in enumerate(("train", "validation"))}
    return dataset._replace(**hidden, settings=dataset.settings | {"missing": share})


def hide(split: types.Split, share: float, seed: int) -> types.Split:
    """Hide a random share of the modalities of rows; each row keeps at least one.

    Args:
      split: the rows.
      share: the probability of hiding a modality.
      seed: seed of the choice.
    """
    rng, names = np.random.default_rng(seed), list(split.data)
    shape = (len(split), len(names))
    had = np.ones(shape, bool) if split.present is None else np.stack([split.present[n] for n in names], axis=1)
    kept = np.argmax(np.where(had, rng.random(shape), -1.0), axis=1)
    present = had & ((rng.random(shape) >= share) | (np.arange(len(names)) == kept[:, None]))
    return dataclasses.replace(split, present=dict(zip(names, present.T, strict=True)))
