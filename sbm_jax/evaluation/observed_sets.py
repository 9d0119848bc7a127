"""Which modalities are given: boolean masks, True = observed, and what metrics ask to be generated."""

import dataclasses
from collections.abc import Collection, Sequence

import jax
import numpy as np

from sbm_jax.errors import SbmError, unknown
from sbm_jax.types import Key

# Families of observed sets.
GIVEN_REST = "given_rest"  # all but the target
RANDOM = "random"  # of each row its own, of one size
FIXED_ORDER = "fixed_order"  # the first ones
TO_TARGET = "to_target"  # the first ones besides the target
FROM_ONE = "from_one"  # a single one, the same in all rows
NAMED = "named"  # the same ones in all rows
UNCONDITIONAL = "unconditional"  # none


@dataclasses.dataclass(frozen=True)
class Ask:
    """Samples that a metric looks at. Metrics that ask for the same share them.

    Attributes:
      family: of observed sets, such as `GIVEN_REST`, or the name of a grid of samples.
      size: how many modalities are given; None where the family says it.
      target: the modality that is judged; "" for all that are generated.
      given: the names of the given modalities, of the family `NAMED`.
      num_samples: samples of each row, next to each other.
      num_rows: the examples to condition on, the first so many; None for all.
      attack: ε, how much what is given is changed before; 0 for not at all.
      misread: the modality that is changed, and the one that is to be misread; () without an attack.
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
    """Return all of a family: of every target or size; none where nothing can be given.

    Args:
      family: of observed sets, but `NAMED`, which `FROM_ONE` asks for.
      modalities: names of the modalities.
      targets: those to generate, where the family has targets; () for all, of `TO_TARGET` for the first.
    """
    if family == UNCONDITIONAL:
        return (Ask(UNCONDITIONAL),)
    sizes = range(1, len(modalities))
    if family == GIVEN_REST:
        return tuple(Ask(GIVEN_REST, target=name) for name in targets or modalities) if sizes else ()
    if family == TO_TARGET:
        return tuple(Ask(TO_TARGET, size, name) for size in sizes for name in targets or modalities[:1])
    if family == FROM_ONE:  # of two modalities, the same as given the rest
        two = len(modalities) == 2
        sets = [(name, next(other for other in modalities if other != name)) for name in modalities if sizes]
        return tuple(Ask(GIVEN_REST, target=other) if two else Ask(NAMED, given=(name,)) for name, other in sets)
    return tuple(Ask(family, size) for size in sizes)


def ask_given(given: Collection[str], target: str, modalities: Sequence[str]) -> Ask:
    """Return what generates a target from the given modalities, from all others where none is named.

    Raises:
      SbmError: if a name is no modality, or the target is given.
    """
    for name in (target, *given):
        if name not in modalities:
            raise unknown("modality of a metric:", name, modalities)
    if target in given:
        raise SbmError(f"a metric asks for {target!r}, and gives it. Leave it out of what is given.")
    others = tuple(name for name in modalities if name != target)
    chosen = tuple(name for name in others if name in given)
    return Ask(GIVEN_REST, target=target) if chosen in ((), others) else Ask(NAMED, given=chosen)


_SIZED = (RANDOM, FIXED_ORDER, TO_TARGET)


def position(ask: Ask, modalities: Sequence[str]) -> tuple:
    """Return the key by which asks are sorted: the order in which they are generated, whoever asks for them."""
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
    return place, repr(ask)  # the latter for an order in any case, the same in all processes


def masks(ask: Ask, key: Key, num_rows: int, modalities: Sequence[str]) -> np.ndarray:
    """Return the observed sets of `num_rows` rows: bool [num_rows, M].

    Args:
      ask: the family, and what it needs.
      key: of one repeat; random sets of each size, and number of samples, are drawn from a key of their own.
      num_rows: R.
      modalities: the names of the columns.

    Raises:
      SbmError: on an unknown family.
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
