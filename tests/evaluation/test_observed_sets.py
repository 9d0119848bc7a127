import jax
import numpy as np
import pytest

from sbm_jax.evaluation import observed_sets


def test_fixed_masks():
    np.testing.assert_array_equal(observed_sets.given_rest(1, 4), [True, False, True, True])
    np.testing.assert_array_equal(observed_sets.first(2, 4), [True, True, False, False])
    sets = [observed_sets.first_others(size, 2, 5) for size in range(1, 5)]
    np.testing.assert_array_equal(sets, [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]])
    np.testing.assert_array_equal(observed_sets.first_others(2, 0, 3), [0, 1, 1])


def test_all_sets_of_a_size():
    np.testing.assert_array_equal(observed_sets.all_of_size(2, 3), [[1, 1, 0], [1, 0, 1], [0, 1, 1]])


def test_random_sets_have_their_size_and_are_uniform():
    observed = observed_sets.random_of_size(jax.random.key(0), 6000, 2, 4)
    assert (observed.sum(axis=1) == 2).all()
    sets = observed_sets.all_of_size(2, 4)
    counts = (observed[:, None, :] == sets).all(axis=2).sum(axis=0)
    np.testing.assert_allclose(counts / 6000, 1 / 6, atol=0.02)


@pytest.mark.parametrize("size", [-1, 5])
def test_impossible_size(size):
    with pytest.raises(ValueError, match="can not be drawn from 4"):
        observed_sets.random_of_size(jax.random.key(0), 3, size, 4)
