"""Rows of data, in memory or read from disk, and reading them ahead of their use."""

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grain
import jax
import numpy as np

T = TypeVar("T")


class Rows(abc.ABC):
    """Rows of a pytree of arrays, read when they are asked for.

    Where rows are expected, a pytree of arrays [N, ...] may be given as well; see `as_rows`.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return N, the number of rows."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> Any:
        """Return the rows of these numbers, int [B], as a pytree of arrays [B, ...]. Several threads may call it."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRows(Rows):
    """Rows in memory.

    Attributes:
      arrays: pytree of arrays [N, ...].
    """

    arrays: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.arrays)[0])

    def take(self, indices: np.ndarray) -> Any:
        """Return the rows of these numbers."""
        return jax.tree.map(lambda array: array[indices], self.arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Repeated:
    """An array [N, ...] with equal rows, of which the different ones are kept, and converted, once.

    Attributes:
      distinct: these, [K, ...].
      indices: which of them each row is, int [N].
    """

    distinct: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.distinct[self.indices[rows]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # what is indexed is one
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""
        return (len(self), *self.distinct.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type of the values."""
        return self.distinct.dtype


def as_rows(rows: Any) -> Rows:
    """Return `Rows` as they are, and a pytree of arrays [N, ...] as rows in memory."""
    return rows if isinstance(rows, Rows) else ArrayRows(rows)


READ_AHEAD = 2**26
"""Bytes of rows that are kept ready before they are needed."""

_MOST_READY = 16  # parts, however small


def read_ahead(make: Callable[[int], T], num: int, num_bytes: int) -> Iterator[T]:
    """Yield `make(0)` to `make(num - 1)`, in order, each made by a background thread before it is asked for.

    Args:
      make: called once for each number, from several threads, in which it should wait rather than compute.
      num: how many there are, at least 1.
      num_bytes: of each; `READ_AHEAD` of them are kept ready, and never fewer than two.
    """
    ready = min(max(READ_AHEAD // num_bytes, 2), _MOST_READY)
    options = grain.ReadOptions(num_threads=min(ready, 4), prefetch_buffer_size=ready)
    with contextlib.closing(iter(grain.MapDataset.range(num).map(make).to_iter_dataset(options))) as made:
        yield from made
