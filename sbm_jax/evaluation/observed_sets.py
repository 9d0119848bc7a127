"""Which modalities are given: boolean masks, True = observed."""

import itertools

import jax
import numpy as np

from sbm_jax.types import Key

# Groups of samples are named by the metrics that they serve.
FIXED_ORDER = "coherence/fixed_order/given_"
TO_TARGET = "coherence/to_target/given_"
GIVEN_REST = "coherence/given_rest/"
UNCONDITIONAL = "unconditional"


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
