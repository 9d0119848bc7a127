"""The throughput benchmark of diffusion decoders draws as many pictures with as many evaluations as it says."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decoder_throughput
from sbm_jax.networks.denoisers import DenoiserConfig
from sbm_jax.networks.diffusion_decoder import Condition


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setitem(decoder_throughput.NETWORKS, "patch", DenoiserConfig("patch", width=8, depth=1))


def test_a_row_for_each_number_of_evaluations():
    options = {"networks": ["patch"], "batch": 2, "repeats": 2, "against": None, "threads": None}
    found = list(decoder_throughput.rows(argparse.Namespace(evaluations=[1, 3], **options)))
    assert [row["evaluations"] for row in found] == [1, 3]
    for row in found:
        assert row["network"] == "patch"
        np.testing.assert_allclose(row["samples_per_second"], 2 / row["seconds"])
        np.testing.assert_allclose(row["ms_per_evaluation"], 1000 * row["seconds"] / row["evaluations"])


def test_it_draws_finite_pictures():
    drawn = decoder_throughput.make_ours("patch", batch=2, evaluations=2)()
    assert drawn.shape == (2, 28, 28, 3)
    assert np.isfinite(drawn).all()


@pytest.mark.peer
def test_the_peer_is_as_large_and_draws_as_many():
    torch = pytest.importorskip("torch")
    condition = Condition(picture=jnp.zeros((1, 28, 28, 3)))
    params = decoder_throughput.make_decoder("unet", 2).init(jax.random.key(0), condition)
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    theirs = sum(parameter.numel() for parameter in decoder_throughput.make_peer_network().parameters())
    assert 0.8 < ours / theirs < 1.25, (ours, theirs)
    drawn = decoder_throughput.make_peer(batch=4, evaluations=2, threads=1, at_once=2)()
    assert drawn.shape == (4, 3, 28, 28)
    assert torch.isfinite(drawn).all()
