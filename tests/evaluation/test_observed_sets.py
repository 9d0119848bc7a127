import jax
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.observed_sets import Ask, position


def test_fixed_masks():
    np.testing.assert_array_equal(observed_sets.given_rest(1, 4), [True, False, True, True])
    np.testing.assert_array_equal(observed_sets.first(2, 4), [True, True, False, False])
    sets = [observed_sets.first_others(size, 2, 5) for size in range(1, 5)]
    np.testing.assert_array_equal(sets, [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]])
    np.testing.assert_array_equal(observed_sets.first_others(2, 0, 3), [0, 1, 1])


def test_random_sets_have_their_size_and_are_uniform():
    observed = observed_sets.random_of_size(jax.random.key(0), 6000, 2, 4)
    assert (observed.sum(axis=1) == 2).all()
    sets, counts = np.unique(observed, axis=0, return_counts=True)
    assert len(sets) == 6
    np.testing.assert_allclose(counts / 6000, 1 / 6, atol=0.02)


@pytest.mark.parametrize("size", [-1, 5])
def test_impossible_size(size):
    with pytest.raises(ValueError, match="cannot be drawn from 4"):
        observed_sets.random_of_size(jax.random.key(0), 3, size, 4)


NAMES = ("a", "b", "c")


def masks(ask, key=0):
    return observed_sets.masks(ask, jax.random.key(key), 50, NAMES)


def test_asks_are_the_same_whoever_asks():
    assert observed_sets.ask_given((), "b", NAMES) == observed_sets.ask_given(("c", "a"), "b", NAMES)
    assert observed_sets.ask_given((), "b", NAMES) in observed_sets.asks("given_rest", NAMES)
    assert observed_sets.ask_given(("c",), "b", NAMES) == observed_sets.ask_given(("c",), "a", NAMES)
    np.testing.assert_array_equal(masks(observed_sets.ask_given(("c",), "b", NAMES))[0], [False, False, True])
    assert observed_sets.asks("given_rest", ("a",)) == observed_sets.asks("random", ("a",)) == ()
    with pytest.raises(SbmError, match="unknown modality of a metric: 'd'"):
        observed_sets.ask_given(("d",), "a", NAMES)
    with pytest.raises(SbmError, match="generates 'a', but also gives it"):
        observed_sets.ask_given(("a",), "a", NAMES)
    with pytest.raises(SbmError, match="unknown family of observed sets 'all'"):
        masks(Ask("all"))


def test_random_sets_of_different_asks_are_drawn_on_their_own():
    drawn = [masks(Ask("random", size, num_samples=n)) for size in (1, 2) for n in (1, 2)]
    assert [m.sum(axis=1).tolist() for m in drawn] == [[1] * 50] * 2 + [[2] * 50] * 2
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[0] != ~drawn[2]).any()  # not one order, cut in two places
    assert (drawn[2] != drawn[3]).any()


def test_one_named_modality_is_asked_for_as_others_ask_for_it():
    from_one = observed_sets.asks("from_one", NAMES)
    assert [masks(ask)[0].tolist() for ask in from_one] == np.eye(3, dtype=bool).tolist()
    assert observed_sets.ask_given(("c",), "a", NAMES) == from_one[2]
    names = ("b", "c", "a")
    order = sorted(observed_sets.asks("from_one", sorted(names)), key=lambda ask: position(ask, names))
    assert [ask.given for ask in order] == [("b",), ("c",), ("a",)]  # that of the modalities
    assert set(observed_sets.asks("from_one", NAMES[:2])) == set(observed_sets.asks("given_rest", NAMES[:2]))
    assert observed_sets.asks("from_one", ("a",)) == ()
