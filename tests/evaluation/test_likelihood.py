"""Bounds of the likelihood from log weights that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation.metrics.likelihood import LikelihoodOptions, bounds

DATA = {"x": np.linspace(0.0, 1.0, 7, dtype=np.float32)}


def _weights(key, data, num_samples):
    """Log weights -x + ε / 2: the ELBO is -x, and the bound of K samples rises to -x + 1/8."""
    return -data["x"][:, None] + 0.5 * jax.random.normal(key, (len(data["x"]), num_samples))


def test_bounds_of_known_weights():
    options = LikelihoodOptions(num_examples=7, num_samples=4000, samples_per_call=1000, batch_size=3)
    found, _ = bounds(_weights, False, DATA, jax.random.key(0), options)
    assert found["likelihood/elbo"].value == pytest.approx(-0.5, abs=0.02)
    assert found["likelihood/importance_weighted"].value == pytest.approx(-0.5 + 0.125, abs=0.02)
    assert found["likelihood/elbo"].n == 7


def test_every_row_counts_once_whatever_the_batch():
    def fixed(key, data, num_samples):
        return jnp.broadcast_to(data["x"][:, None], (len(data["x"]), num_samples))

    for batch_size in (1, 3, 7, 50):
        options = LikelihoodOptions(num_examples=6, num_samples=2, samples_per_call=1, batch_size=batch_size)
        found, _ = bounds(fixed, False, {"x": DATA["x"][:6]}, jax.random.key(0), options)
        assert found["likelihood/elbo"].value == pytest.approx(DATA["x"][:6].mean())


def test_costly_weights_are_taken_once():
    asked = []

    def counted(key, data, num_samples):
        asked.append(num_samples)
        return _weights(key, data, num_samples)

    found, _ = bounds(counted, True, DATA, jax.random.key(0), LikelihoodOptions(num_examples=7))
    assert asked == [1]
    assert list(found) == ["likelihood/elbo"]


def test_samples_must_make_whole_calls():
    with pytest.raises(SbmError, match="divisor"):
        LikelihoodOptions(num_samples=10, samples_per_call=4)


def test_rows_without_a_finite_bound_are_left_out_and_counted():
    def some(key, data, num_samples):
        return jnp.where(data["x"][:, None] > 0.9, jnp.nan, _weights(key, data, num_samples))

    found, missing = bounds(some, False, DATA, jax.random.key(0), LikelihoodOptions(num_examples=7))
    assert all(np.isfinite(e.value) and e.n == 6 for e in found.values())
    assert missing["likelihood/elbo/rows_left_out"] == "1 of 7 rows have no finite bound"

    def none(key, data, num_samples):
        return jnp.full((len(data["x"]), num_samples), jnp.nan)

    found, missing = bounds(none, True, DATA, jax.random.key(0), LikelihoodOptions(num_examples=7))
    assert found == {}
    assert missing["likelihood/elbo"] == "7 of 7 rows have no finite bound"
