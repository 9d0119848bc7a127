"""The interface of data sets: their options, and the function that loads them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sbm_jax import types


class Loader(NamedTuple):
    """A data set, selected by `data.name`.

    Attributes:
      options: a `config.checked_dataclass`.
      load: `(options, cache_dir, names) -> data set`, from the options, a persistent directory for prepared data, and
        the names of the wanted modalities (None: all). The settings of the result must identify its content, with a
        digest where it comes from files: models trained on it are reused as long as the settings are the same.
    """

    options: type
    load: Callable[[Any, pathlib.Path, Sequence[str] | None], types.Dataset]
