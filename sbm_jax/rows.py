"""Rows of data, in memory or on disk, and prefetching."""

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
    """Rows of a pytree of arrays, read on demand.

    A pytree of arrays [N, ...] is accepted wherever rows are expected; see `as_rows`.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return N, the number of rows."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> Any:
        """Return the rows at `indices`, int [B], as a pytree of arrays [B, ...]. Must be thread-safe."""


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
        """Return the rows at `indices`, int [B]."""
        return jax.tree.map(lambda array: array[indices], self.arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Repeated:
    """An array [N, ...] with repeated rows, which stores and converts each distinct row once.

    Attributes:
      distinct: the distinct rows [K, ...].
      indices: int [N], the index of each row in `distinct`.
    """

    distinct: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.distinct[self.indices[rows]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # indexing already copies
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, (N, ...)."""
        return (len(self), *self.distinct.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The data type."""
        return self.distinct.dtype


def as_rows(rows: Any) -> Rows:
    """Return `Rows` unchanged, and wrap a pytree of arrays [N, ...] as rows in memory."""
    return rows if isinstance(rows, Rows) else ArrayRows(rows)


READ_AHEAD = 2**26
"""Bytes of rows to prefetch."""

_MOST_READY = 16  # at most this many items, however small


def read_ahead(make: Callable[[int], T], num: int, num_bytes: int) -> Iterator[T]:
    """Yield `make(0)` to `make(num - 1)` in order, prefetching them in background threads.

    Args:
      make: called once per number, from several threads; it should wait for I/O rather than compute.
      num: number of items, at least 1.
      num_bytes: size of an item; `READ_AHEAD` bytes are prefetched, but at least two items and at most 16.
    """
    ready = min(max(READ_AHEAD // num_bytes, 2), _MOST_READY)
    options = grain.ReadOptions(num_threads=min(ready, 4), prefetch_buffer_size=ready)
    with contextlib.closing(iter(grain.MapDataset.range(num).map(make).to_iter_dataset(options))) as made:
        yield from made
