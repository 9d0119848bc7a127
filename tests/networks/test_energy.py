"""Energies of pairs: one network for all, or one for each pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.energy import PairEnergies, PairEnergy

B, M, D = 4, 3, 8
EVERY = np.stack(np.divmod(np.arange(M**2), M), axis=-1)


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 4)
    z, other = (jax.random.normal(key, (B, M, D)) for key in keys[:2])
    t, other_t = (jax.random.uniform(key, (B, M)) for key in keys[2:])
    return z, t, other, other_t


def test_each_pair_has_a_network_of_its_own(inputs):
    """The energy of a pair is that of one network with the parameters of this pair, in either order."""
    pairs = jnp.broadcast_to(EVERY[None], (B, *EVERY.shape))
    networks, one = PairEnergies(16, 2), PairEnergy(16, 2)
    params = networks.init(jax.random.key(1), *inputs, pairs)["params"]
    found = networks.apply({"params": params}, *inputs, pairs)
    numbers = {(0, 1): 0, (0, 2): 1, (1, 2): 2}
    for place, (first, second) in enumerate(EVERY):
        if first == second:
            continue
        number = numbers[min(first, second), max(first, second)]
        own = jax.tree.map(lambda leaf, number=number: leaf[number], params["pairs"])
        expected = one.apply({"params": own}, *inputs, pairs[:, place : place + 1])
        np.testing.assert_allclose(found[:, place], expected[:, 0], rtol=1e-5)
    kernels = next(leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 3)
    assert len(kernels) == 3
    assert not np.allclose(kernels[0], kernels[1])


def test_rows_may_have_pairs_of_their_own(inputs):
    networks = PairEnergies(16, 1)
    pairs = jnp.array([[0, 1], [2, 0], [1, 2], [1, 0]])[:, None]
    params = networks.init(jax.random.key(1), *inputs, pairs)["params"]
    found = networks.apply({"params": params}, *inputs, pairs)
    for row, pair in enumerate(pairs):
        alone = networks.apply({"params": params}, *inputs, jnp.broadcast_to(pair[None], (B, 1, 2)))
        np.testing.assert_allclose(found[row], alone[row], rtol=1e-5)
