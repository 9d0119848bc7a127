"""Which modalities are given: boolean masks, True = observed."""

import dataclasses
import itertools

import jax
import numpy as np

from sbm_jax.types import Key

# Families of observed sets.
GIVEN_REST = "given_rest"
RANDOM = "random"
FIXED_ORDER = "fixed_order"
TO_TARGET = "to_target"
UNCONDITIONAL = "unconditional"
DIVERSITY = "diversity"


@dataclasses.dataclass(frozen=True)
class Group:
    """What some samples are generated for.

    Attributes:
      family: of observed sets, such as `GIVEN_REST`, or the name of a grid of samples.
      size: how many modalities are given; None where the family says it.
      target: the modality that is judged; "" for all that are generated.
    """

    family: str
    size: int | None = None
    target: str = ""


def given_rest(target: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of all modalities but `target`."""
    return np.arange(num_modalities) != target


def first(size: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of the first `size` modalities, the papers' fixed order '0', '01', '012', ..."""
    return np.arange(num_modalities) < size


def first_others(size: int, target: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of the first `size` modalities besides `target`: '0', '01', '013', ... for target 2."""
    indices = np.arange(num_modalities)
    return (indices < size + (size > target)) & (indices != target)


def random_of_size(key: Key, batch: int, size: int, num_modalities: int) -> np.ndarray:
    """Return masks [batch, M]: for each row its own set, uniform among those of `size` modalities.

    Raises:
      ValueError: when `size` is not in 0..M.
    """
    if not 0 <= size <= num_modalities:
        raise ValueError(f"a set of {size} modalities can not be drawn from {num_modalities}.")
    order = np.argsort(np.asarray(jax.random.uniform(key, (batch, num_modalities))), axis=1)
    observed = np.zeros((batch, num_modalities), bool)
    np.put_along_axis(observed, order[:, :size], True, axis=1)
    return observed


def all_of_size(size: int, num_modalities: int) -> np.ndarray:
    """Return the masks [C(M, size), M] of every set of `size` modalities, in lexicographic order."""
    sets = list(itertools.combinations(range(num_modalities), size))
    observed = np.zeros((len(sets), num_modalities), bool)
    for row, members in zip(observed, sets, strict=True):
        row[list(members)] = True
    return observed
