"""What each kind of data set brings: its options, and the function that reads it."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sbm_jax import types


class Loader(NamedTuple):
    """A kind of data set, found by `data.name`.

    Attributes:
      options: a `config.checked_dataclass`.
      load: `(options, cache_dir, names) -> data set`: the options, a directory that is kept for prepared data, and the
        names of the modalities that are wanted (None: all). The settings of what it returns must tell its content, by a
        digest where that comes from files: what is trained on it is used again as long as they are the same.
    """

    options: type
    load: Callable[[Any, pathlib.Path, Sequence[str] | None], types.Dataset]
