"""Observed sets as boolean masks, True = given, and the samples that metrics request for them."""

import dataclasses
from collections.abc import Collection, Sequence

import jax
import numpy as np

from sbm_jax.errors import SbmError, unknown
from sbm_jax.types import Key

# Families of observed sets.
GIVEN_REST = "given_rest"  # all modalities but the target
RANDOM = "random"  # a random set of one size, drawn for each row
FIXED_ORDER = "fixed_order"  # the first modalities
TO_TARGET = "to_target"  # the first modalities other than the target
FROM_ONE = "from_one"  # a single modality, the same in all rows
NAMED = "named"  # named modalities, the same in all rows
UNCONDITIONAL = "unconditional"  # no modality


@dataclasses.dataclass(frozen=True)
class Ask:
    """Samples that a metric requests. Metrics with equal asks share the samples.

    Attributes:
      family: family of observed sets, such as `GIVEN_REST`, or the name of a sample grid.
      size: number of given modalities; None if the family determines it.
      target: the modality that is evaluated; "" for all that are generated.
      given: names of the given modalities, for the family `NAMED`.
      num_samples: samples per row, next to each other.
      num_rows: number of examples to condition on, from the first; None for all.
      attack: ε, strength of the attack on the given data; 0 for no attack.
      misread: the attacked modality and the one to be misread from it; () without an attack.
    """

    family: str
    size: int | None = None
    target: str = ""
    given: tuple[str, ...] = ()
    num_samples: int = 1
    num_rows: int | None = None
    attack: float = 0.0
    misread: tuple[str, ...] = ()


def asks(family: str, modalities: Sequence[str], targets: Collection[str] = ()) -> tuple[Ask, ...]:
    """Return the asks of a family, one per target or size; none if nothing can be given.

    Args:
      family: family of observed sets, except `NAMED`, which `FROM_ONE` uses.
      modalities: names of the modalities.
      targets: modalities to generate, for families with targets; () for all, or for the first with `TO_TARGET`.
    """
    if family == UNCONDITIONAL:
        return (Ask(UNCONDITIONAL),)
    sizes = range(1, len(modalities))
    if family == GIVEN_REST:
        return tuple(Ask(GIVEN_REST, target=name) for name in targets or modalities) if sizes else ()
    if family == TO_TARGET:
        return tuple(Ask(TO_TARGET, size, name) for size in sizes for name in targets or modalities[:1])
    if family == FROM_ONE:  # with two modalities, the same as GIVEN_REST
        two = len(modalities) == 2
        sets = [(name, next(other for other in modalities if other != name)) for name in modalities if sizes]
        return tuple(Ask(GIVEN_REST, target=other) if two else Ask(NAMED, given=(name,)) for name, other in sets)
    return tuple(Ask(family, size) for size in sizes)


def ask_given(given: Collection[str], target: str, modalities: Sequence[str]) -> Ask:
    """Return the ask for a target given some modalities, or all others if `given` is empty.

    Raises:
      SbmError: if a name is not a modality, or the target is given.
    """
    for name in (target, *given):
        if name not in modalities:
            raise unknown("modality of a metric:", name, modalities)
    if target in given:
        raise SbmError(f"a metric generates {target!r}, but also gives it. Leave it out of what is given.")
    others = tuple(name for name in modalities if name != target)
    chosen = tuple(name for name in others if name in given)
    return Ask(GIVEN_REST, target=target) if chosen in ((), others) else Ask(NAMED, given=chosen)


_SIZED = (RANDOM, FIXED_ORDER, TO_TARGET)


def position(ask: Ask, modalities: Sequence[str]) -> tuple:
    """Return the sort key of an ask: samples are generated in this order, whichever metrics request them."""
    names = list(modalities)
    target = names.index(ask.target) if ask.target else -1
    if ask.num_samples > 1:
        place = (2,)
    elif ask.family == GIVEN_REST:
        place = (0, target)
    elif ask.family in _SIZED:
        place = (1, ask.size, _SIZED.index(ask.family), target)
    else:
        place = (3, ask.family == UNCONDITIONAL, tuple(names.index(name) for name in ask.given))
    return place, repr(ask)  # repr breaks ties, equally in all processes


def masks(ask: Ask, key: Key, num_rows: int, modalities: Sequence[str]) -> np.ndarray:
    """Return the observed sets of `num_rows` rows, bool [num_rows, M].

    Args:
      ask: the family and its parameters.
      key: key of the repeat; random sets use a separate key for each size and number of samples.
      num_rows: R, number of rows.
      modalities: names of the columns.

    Raises:
      SbmError: if the family is unknown.
    """
    names, count = list(modalities), len(modalities)
    if ask.family == RANDOM:
        number = ask.size + (count - 1) * (ask.num_samples - 1)
        return random_of_size(jax.random.fold_in(key, number), num_rows, ask.size, count)
    known = {
        GIVEN_REST: lambda: given_rest(names.index(ask.target), count),
        FIXED_ORDER: lambda: first(ask.size, count),
        TO_TARGET: lambda: first_others(ask.size, names.index(ask.target), count),
        NAMED: lambda: np.isin(names, ask.given),
        UNCONDITIONAL: lambda: np.zeros(count, bool),
    }
    if ask.family not in known:
        raise unknown("family of observed sets", ask.family, (RANDOM, *known))
    return np.tile(known[ask.family](), (num_rows, 1))


def given_rest(target: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of all modalities but `target`."""
    return np.arange(num_modalities) != target


def first(size: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of the first `size` modalities: the papers' fixed order '0', '01', '012', ..."""
    return np.arange(num_modalities) < size


def first_others(size: int, target: int, num_modalities: int) -> np.ndarray:
    """Return the mask [M] of the first `size` modalities other than `target`: '0', '01', '013', ... for target 2."""
    indices = np.arange(num_modalities)
    return (indices < size + (size > target)) & (indices != target)


def random_of_size(key: Key, batch: int, size: int, num_modalities: int) -> np.ndarray:
    """Return masks [batch, M], each drawn uniformly from the sets of `size` modalities.

    Raises:
      ValueError: if `size` is not in 0..M.
    """
    if not 0 <= size <= num_modalities:
        raise ValueError(f"a set of {size} modalities cannot be drawn from {num_modalities}.")
    order = np.argsort(np.asarray(jax.random.uniform(key, (batch, num_modalities))), axis=1)
    observed = np.zeros((batch, num_modalities), bool)
    np.put_along_axis(observed, order[:, :size], True, axis=1)
    return observed
