"""Functions of rows that are split over several devices, against one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import parallel
from tests.robustness.pod_worker import dataset, systems

DATA = dataset()
SYSTEMS = {system.name: system for system in systems(2, split=False)}


@pytest.mark.parametrize("num_rows", [1, 3, 8, 11])
def test_rows_are_split_and_none_is_lost(num_rows):
    rows = {"x": np.arange(2.0 * num_rows, dtype=np.float32).reshape(num_rows, 2)}
    split = parallel.over_rows(lambda whole, rows, power: (whole * rows["x"] ** power).sum(axis=1), static_argnums=2)
    found = split(jnp.float32(2.0), rows, 3)
    np.testing.assert_allclose(found, 2 * (rows["x"] ** 3).sum(axis=1))
    assert len(found.sharding.device_set) == jax.device_count() > 1
    assert found.sharding.is_fully_replicated


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.slow
def test_log_weights_do_not_depend_on_the_devices(name):
    """Nine rows, which devices cannot share evenly: the noise of a row is that without the rows that fill up."""
    system, products = SYSTEMS[name], {}
    for stage in system.stages(DATA):
        products[stage.name] = stage.init(jax.random.key(0), products)
    whole, rows = (products, jax.random.key(1)), DATA.test.data

    def log_weights(whole, rows):
        return system.log_weights(*whole, rows, 3)

    expected = jax.jit(log_weights)(whole, rows)
    assert expected.shape == (9, 3)
    np.testing.assert_allclose(parallel.over_rows(log_weights)(whole, rows), expected, rtol=1e-4, atol=1e-4)
