import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.data.pipeline import batch_rows, in_units
from sbm_jax.errors import SbmError


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 3), (10, 5), (10, 10), (7, 4), (1, 1)])
def test_every_epoch_is_a_permutation(num_rows, batch_size):
    steps = 4 * num_rows
    rows = batch_rows(num_rows, batch_size, seed=2, first_step=0, num_steps=steps)
    assert rows.shape == (steps, batch_size)
    assert rows.dtype == np.int32
    for epoch in rows.reshape(-1, num_rows):
        assert sorted(epoch) == list(range(num_rows))


def test_epochs_and_seeds_differ():
    first, second = batch_rows(50, 50, seed=0, first_step=0, num_steps=2)
    (other,) = batch_rows(50, 50, seed=1, first_step=0, num_steps=1)
    assert (first != second).any()
    assert (first != other).any()


@pytest.mark.parametrize("first_step", [0, 1, 3, 17, 40])
def test_rows_are_a_function_of_the_step(first_step):
    whole = batch_rows(11, 4, seed=5, first_step=0, num_steps=60)
    part = batch_rows(11, 4, seed=5, first_step=first_step, num_steps=20)
    np.testing.assert_array_equal(part, whole[first_step : first_step + 20])


def test_no_steps_give_no_rows():
    assert batch_rows(11, 4, seed=0, first_step=3, num_steps=0).shape == (0, 4)


@pytest.mark.parametrize("batch_size", [0, 12])
def test_impossible_batches_are_refused(batch_size):
    with pytest.raises(SbmError, match=f"the batch size is {batch_size}, but the data have 11 rows"):
        batch_rows(11, batch_size, seed=0, first_step=0, num_steps=1)


def test_images_become_floats_in_the_unit_interval_and_ids_stay_integers():
    data = in_units(
        {"image": jnp.array([0, 51, 255], jnp.uint8), "signal": jnp.array([2.0, -3.0]), "ids": jnp.array([2, 0])}
    )
    np.testing.assert_allclose(data["image"], [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_array_equal(data["signal"], [2.0, -3.0])
    assert data["signal"].dtype == jnp.float32
    assert data["ids"].dtype == jnp.int32
