"""Noise-contrastive estimation and InfoNCE against restatements and known optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.losses.info_nce import has_pair, info_nce_terms
from sbm_jax.losses.noise_contrastive import draw_pairs, noise_contrastive_terms, usable
from sbm_jax.losses.score_matching import random_observed, random_present
from sbm_jax.sde import VP

SDE = VP()
VALID = jnp.ones((3, 2), bool)


def _linear_energy(observed, observed_t, free, free_t, pairs):
    """An energy that tells everything apart that it is given."""
    rows = jnp.arange(len(pairs))
    o, u = pairs[:, 0, 0], pairs[:, 0, 1]
    value = observed[rows, o].sum(axis=-1) - 2 * free[rows, u].sum(axis=-1) + observed_t[rows, o] - free_t[rows, u]
    return value[:, None]


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_terms_agree_with_numpy(weight):
    z = jax.random.normal(jax.random.key(0), (6, 3, 2))
    draws = draw_pairs(jax.random.key(1), z.shape, 0.5)
    loss, _ = noise_contrastive_terms(_linear_energy, SDE, z, z, VALID, draws, weight)
    assert draws.clean.any()
    assert not draws.clean.all()
    for row in range(6):
        o, u = np.asarray(draws.pair[row])
        assert o != u
        t = draws.time[row]
        alpha, sigma = (float(value) for value in SDE.marginal(t))
        t_o = 0.0 if draws.clean[row] else float(t)
        z_o = z[row, o] if draws.clean[row] else alpha * z[row, o] + sigma * draws.noise[0, row, o]
        other = (row + int(draws.shift)) % 6
        assert other != row

        def energy(free, z_o=z_o, t_o=t_o, t=t):
            return float(z_o.sum() - 2 * free.sum() + t_o - t)

        positive = energy(alpha * z[row, u] + sigma * draws.noise[1, row, u])
        negative = energy(alpha * z[other, u] + sigma * draws.noise[2, row, u])
        gaussian = energy(draws.noise[2, row, u])
        expected = np.logaddexp(0, positive)
        expected += (1 - weight) * np.logaddexp(0, -negative) + weight * np.logaddexp(0, -gaussian)
        np.testing.assert_allclose(loss[row], expected, rtol=1e-4)


def test_the_optimum_is_the_density_ratio():
    """Two correlated Gaussians at time ~0: fit E = a + b x² + c y² + d x y, and compare with -log p(x,y)/(p(x)p(y))."""
    rho, rows = 0.6, 4096
    first, noise = jax.random.normal(jax.random.key(0), (2, rows))
    z = jnp.stack([first, rho * first + (1 - rho**2) ** 0.5 * noise], axis=1)[:, :, None]

    def loss(theta, key):
        def energy_fn(observed, observed_t, free, free_t, pairs):
            index = jnp.arange(rows)
            x, y = observed[index, pairs[:, 0, 0], 0], free[index, pairs[:, 0, 1], 0]
            return (theta[0] + theta[1] * (x**2 + y**2) + theta[2] * x * y)[:, None]

        draws = draw_pairs(key, z.shape, 1.0)
        draws = draws.replace(time=jnp.full_like(draws.time, 1e-4))
        return noise_contrastive_terms(energy_fn, SDE, z, z, jnp.ones((2, 1), bool), draws, 0.0)[0].mean()

    @jax.jit
    def step(i, theta):
        return theta - 0.3 * jax.grad(loss)(theta, jax.random.fold_in(jax.random.key(1), i))

    theta = jax.lax.fori_loop(0, 600, step, jnp.zeros(3))
    scale = 1 - rho**2
    expected = [0.5 * np.log(scale), 0.5 / scale - 0.5, -rho / scale]
    np.testing.assert_allclose(theta, expected, atol=0.1)


def test_info_nce_agrees_with_numpy():
    embeddings = jax.random.normal(jax.random.key(0), (4, 3, 5))
    embeddings = embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
    loss, found = info_nce_terms(embeddings, jnp.log(3.0))
    e = np.asarray(embeddings, np.float64)
    expected = np.zeros(4)
    for i in range(3):
        for j in range(3):
            if i != j:
                logits = 3.0 * e[:, i] @ e[:, j].T
                expected += (np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)) / 6
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert found.shape == (4,)


def test_info_nce_of_incomplete_rows_is_that_of_what_they_have():
    embeddings = jax.random.normal(jax.random.key(0), (5, 3, 4))
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]], bool)
    loss, found = info_nce_terms(embeddings, jnp.log(2.0), present=jnp.asarray(present))
    e, expected, hits = np.asarray(embeddings, np.float64), np.zeros(5), np.zeros(5)
    for row in range(5):
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j and present[row, i] and present[row, j]]
        for i, j in pairs:
            logits = {c: 2.0 * e[row, i] @ e[c, j] for c in range(5) if present[c, j]}
            expected[row] += (np.log(sum(np.exp(v) for v in logits.values())) - logits[row]) / len(pairs)
            hits[row] += (max(logits, key=logits.get) == row) / len(pairs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(found, hits, rtol=1e-5)
    assert loss[3] == 0
    np.testing.assert_array_equal(has_pair(jnp.asarray(present)), [True, True, True, False, True])


def test_pairs_are_of_what_rows_have():
    present = jnp.asarray(np.random.default_rng(0).random((400, 3)) < 0.5)
    draws = draw_pairs(jax.random.key(0), (400, 3, 2), 0.5, present)
    rows = np.asarray(usable(draws, present))
    given, free = np.asarray(draws.pair).T
    has = np.asarray(present)
    expected = [has[b, given[b]] and has[b, free[b]] and has[(b + int(draws.shift)) % 400, free[b]] for b in range(400)]
    np.testing.assert_array_equal(rows, expected)
    rows_with_pair, index = has.sum(axis=1) > 1, np.arange(400)
    assert (has[index, given] & has[index, free])[rows_with_pair].all()
    share = rows_with_pair.mean() * has.mean()  # of rows that have a pair, and a negative that has its second part
    assert rows.mean() == pytest.approx(share, abs=3 * (share * (1 - share) / 400) ** 0.5)


def test_info_nce_of_equal_embeddings_finds_every_counterpart():
    embeddings = jnp.repeat(jnp.eye(6)[:, None], 3, axis=1)
    loss, found = info_nce_terms(embeddings, jnp.log(50.0))
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    np.testing.assert_array_equal(found, 1.0)
    hot, _ = info_nce_terms(embeddings, jnp.float32(1e3))  # a runaway temperature is held at its bound
    assert np.isfinite(hot).all()


def test_modalities_are_left_out_only_where_nothing_is_observed():
    observed = random_observed(jax.random.key(0), 4000, 4, 0.5)
    present = np.asarray(random_present(jax.random.key(1), observed, 0.5))
    empty = ~np.asarray(observed).any(axis=1)
    assert present[~empty].all()
    assert present.any(axis=1).all()
    np.testing.assert_allclose((~present[empty]).any(axis=1).mean(), 0.5, atol=0.05)
    np.testing.assert_allclose((~present[empty]).mean(axis=0), 0.25, atol=0.04)
