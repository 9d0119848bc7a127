"""Guidance as a transform of the score: closed forms, and the choice of pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.sampling.guidance import classifier_free, energy_guidance
from sbm_jax.types import Context

OBSERVED = jnp.array([[True, False, False], [True, True, False], [False, False, False], [True, True, True]])
CONTEXT = Context(OBSERVED, jnp.array([[True, True], [True, True], [True, False]]))
Z = jnp.where(CONTEXT.valid[None], jax.random.normal(jax.random.key(0), (4, 3, 2)), 0.0)
T = jnp.where(OBSERVED, 0.0, 0.5)
KEY = jax.random.key(1)


def _score(key, z, t):
    return jnp.where(CONTEXT.free, -z, 0.0)


def _quadratic(z, t, pairs):
    """E(z_o, z_u) = ½ ‖z_u - z_o‖², whose gradient is z_u - z_o."""
    first, second = (jnp.take_along_axis(z, pairs[:, :, i, None], axis=1) for i in range(2))
    return 0.5 * jnp.sum((second - first) ** 2, axis=-1)


def test_all_pairs_of_a_quadratic_energy():
    score = energy_guidance(_quadratic, 0.7, "all")(_score, CONTEXT)(KEY, Z, T)
    expected = np.asarray(_score(KEY, Z, T)).copy()
    for row, mask in enumerate(np.asarray(OBSERVED)):
        for o in np.flatnonzero(mask):
            for u in np.flatnonzero(~mask):
                expected[row, u] -= 0.7 * np.asarray(Z[row, u] - Z[row, o])
    np.testing.assert_allclose(score, np.where(CONTEXT.free, expected, 0.0), rtol=1e-5, atol=1e-6)


def test_random_pairs_are_one_per_row_and_uniform():
    guided = jax.jit(energy_guidance(_quadratic, 1.0, "random")(_score, CONTEXT))
    counts = np.zeros((4, 3, 3))
    for i in range(400):
        pull = np.asarray(guided(jax.random.key(i), Z, T) - _score(KEY, Z, T))
        for row, mask in enumerate(np.asarray(OBSERVED)):
            moved = np.flatnonzero(np.abs(pull[row]).max(axis=1) > 0)
            assert len(moved) == (1 if mask.any() and not mask.all() else 0)
            for u in moved:
                gaps = [np.abs(pull[row, u] - np.where(CONTEXT.valid[u], Z[row, o] - Z[row, u], 0)) for o in range(3)]
                counts[row, np.argmin([gap.max() if mask[o] else np.inf for o, gap in enumerate(gaps)]), u] += 1
    np.testing.assert_allclose(counts[0, 0, 1:] / 400, 0.5, atol=0.1)
    np.testing.assert_allclose(counts[1, :2, 2] / 400, 0.5, atol=0.1)


def test_absent_modalities_make_no_pairs():
    context = CONTEXT.replace(present=jnp.array([[False, True, True]] * 4))
    score = energy_guidance(_quadratic, 1.0, "all")(_score, context)(KEY, Z, T)
    pull = np.asarray(score - _score(KEY, Z, T))
    assert not pull[0].any()  # its only observed modality is absent
    np.testing.assert_allclose(pull[1, 2, 0], Z[1, 1, 0] - Z[1, 2, 0], rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_classifier_free_extrapolates(weight):
    def unconditional(key, z, t):
        return -2.0 * z

    score = classifier_free(unconditional, weight)(_score, CONTEXT)(KEY, Z, T)
    expected = np.where(CONTEXT.free, (1 + weight) * -Z - weight * -2.0 * Z, 0.0)
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)


def test_bad_choices_are_refused():
    with pytest.raises(SbmError, match="Did you mean 'random'"):
        energy_guidance(_quadratic, 1.0, "randm")
    with pytest.raises(SbmError, match="one for each of 4 rows"):
        energy_guidance(_quadratic, jnp.ones(3))(_score, CONTEXT)
