"""Bounds of the multimodal VAEs against the exact log likelihood of a linear-Gaussian model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.losses import bounds
from sbm_jax.losses.bounds import Decoding, all_subsets
from sbm_jax.losses.mixtures_of_experts import Family, mmvae_plus_terms, mmvae_terms
from sbm_jax.losses.mixtures_of_products import PrivateLatents, mixture_of_products_log_prob, mopoe_terms
from sbm_jax.losses.products_of_experts import mvae_terms, mvtcae_terms
from sbm_jax.types import Modality

NUM_MODALITIES, SIZE, LATENT, BATCH, SCALE = 3, 4, 2, 6, 0.8
MODALITIES = tuple(Modality(f"m{i}", (SIZE,), LATENT, "mlp", "gaussian", SCALE) for i in range(NUM_MODALITIES))
NAMES = [modality.name for modality in MODALITIES]
WEIGHTS = np.random.default_rng(0).normal(size=(NUM_MODALITIES, LATENT, SIZE)).astype(np.float32)


def _data():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(BATCH, LATENT))
    x = np.einsum("bd,mds->bms", z, WEIGHTS) + SCALE * rng.normal(size=(BATCH, NUM_MODALITIES, SIZE))
    return x.astype(np.float32)


X = _data()


def _log_prob(latents, part=0, weights=WEIGHTS):
    """Return {name: log p(x | z) [..., B]} of decoders that look at the first entries of latents only."""
    found = {}
    for name, z in latents.items():
        i = NAMES.index(name)
        output = z[..., : weights.shape[1]] @ jnp.asarray(weights[i])
        x = jnp.broadcast_to(X[:, i], output.shape)
        found[name] = LIKELIHOODS["gaussian"].log_prob(x, output, SCALE).sum(axis=-1)
    return found


DECODING = Decoding(MODALITIES, _log_prob, (1.0,) * NUM_MODALITIES)


def _number_of_part(latents, part):
    return {name: 0.0 * z[..., 0] + part for name, z in latents.items()}


def test_each_part_of_latents_that_are_many_has_a_number(monkeypatch):
    monkeypatch.setattr(bounds, "DECODED_AT_ONCE", 2 * BATCH)
    decoding = DECODING._replace(log_prob_fn=_number_of_part)
    found = decoding.log_likelihood(jnp.zeros((5, BATCH, LATENT)))
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(5))


def _exact(members=slice(None)):
    """Return log p(x) [B] of the modalities."""
    weights = np.concatenate(list(WEIGHTS[members]), axis=-1).astype(np.float64)
    x = X[:, members].reshape(BATCH, -1).astype(np.float64)
    covariance = weights.T @ weights + SCALE**2 * np.eye(x.shape[1])
    _, log_det = np.linalg.slogdet(covariance)
    distance = np.einsum("bi,ij,bj->b", x, np.linalg.inv(covariance), x)
    return -0.5 * (distance + log_det + x.shape[1] * np.log(2 * np.pi))


def _experts():
    """Return experts [B, M, D]: the diagonal Gaussian part of each modality's exact posterior."""
    precision = np.eye(LATENT)[None] + np.einsum("mds,mes->mde", WEIGHTS, WEIGHTS) / SCALE**2
    mean = np.einsum("mde,mes,bms->bmd", np.linalg.inv(precision), WEIGHTS, X) / SCALE**2
    log_variance = -np.log(np.diagonal(precision, axis1=1, axis2=2))
    log_variance = np.broadcast_to(log_variance[None], mean.shape)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32)


def _average(terms, shape, number=400, noise="normal"):
    """Return the mean of per-row losses [B] over fresh noise, and its error."""

    def draw(key):
        if noise == "uniform":
            return jax.random.uniform(key, shape, minval=-1.0 + 1e-6, maxval=1.0)
        return jax.random.normal(key, shape)

    losses = np.asarray(jax.jit(jax.vmap(lambda key: terms(draw(key))))(jax.random.split(jax.random.key(0), number)))
    return losses.mean(axis=0), losses.std(axis=0) / np.sqrt(number)


def _subset_bounds(noise, present=None):
    everything = np.ones((1, NUM_MODALITIES), bool)
    return mvae_terms(*_experts(), DECODING, noise, everything, 1.0, present).loss


def _mopoe(noise):
    rows = jnp.arange(BATCH) % 7
    return mopoe_terms(*_experts(), DECODING, noise, rows, 1.0).loss


def _mvtcae(noise):
    return mvtcae_terms(*_experts(), DECODING, noise, 0.0, 1.0).loss


def _mmvae(posterior, estimator, present=None):
    def terms(noise):
        family = Family(posterior, estimator)
        return mmvae_terms(*_experts(), DECODING, noise, jnp.zeros(LATENT), family, present)

    return terms


def _mmvae_plus(noise):
    """With decoders that do not look at private latents, whose posteriors are not their priors."""
    private = jnp.full((BATCH, NUM_MODALITIES, LATENT), 0.3), jnp.full((BATCH, NUM_MODALITIES, LATENT), -0.5)
    priors, family = jnp.zeros((NUM_MODALITIES, LATENT)), Family("normal", "iwae")
    return mmvae_plus_terms(*_experts(), *private, DECODING, list(noise), priors, 1.0, family)


LACKING = [0, 2]
PRESENT = jnp.broadcast_to(jnp.array([True, False, True])[None], (BATCH, NUM_MODALITIES))


BOUNDS = {
    "mvae": (_subset_bounds, (1, BATCH, LATENT)),
    "mopoe": (_mopoe, (BATCH, LATENT)),
    "mvtcae": (_mvtcae, (BATCH, LATENT)),
    "mmvae": (_mmvae("normal", "iwae"), (NUM_MODALITIES, 1, BATCH, LATENT)),
    "mmvae, 20 samples": (_mmvae("normal", "iwae"), (NUM_MODALITIES, 20, BATCH, LATENT)),
    "mmvae_plus": (_mmvae_plus, (NUM_MODALITIES * (NUM_MODALITIES + 1), 1, BATCH, LATENT)),
    "mvae, lacking one": (lambda noise: _subset_bounds(noise, PRESENT), (1, BATCH, LATENT)),
    "mmvae, lacking one": (_mmvae("normal", "iwae", PRESENT), (NUM_MODALITIES, 1, BATCH, LATENT)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_below_the_log_likelihood(name):
    loss, error = _average(*BOUNDS[name])
    exact = _exact(LACKING) if "lacking" in name else _exact()
    assert (-loss <= exact + 4 * error).all()
    assert (-loss > exact - 60).all()  # and not by any amount


def test_more_importance_samples_are_nearer():
    gaps = [(_exact() + _average(*BOUNDS[name])[0]).mean() for name in ("mmvae", "mmvae, 20 samples")]
    assert 0 < gaps[1] < 0.5 * gaps[0]


def test_the_product_of_exact_experts_is_exact():
    """One latent entry: the posterior is the product of the prior and a Gaussian for each modality."""
    precision = (WEIGHTS[:, 0] ** 2).sum(axis=-1) / SCALE**2
    mean = np.einsum("ms,bms->bm", WEIGHTS[:, 0], X) / SCALE**2 / precision[None]
    log_variance = np.broadcast_to(-np.log(precision)[None], mean.shape)
    decoding = DECODING._replace(log_prob_fn=functools.partial(_log_prob, weights=WEIGHTS[:, :1]))

    def terms(noise):
        experts = (jnp.asarray(array, jnp.float32)[..., None] for array in (mean, log_variance))
        return mvae_terms(*experts, decoding, noise, np.ones((1, 3), bool), 1.0).loss

    flat = WEIGHTS[:, 0].reshape(-1).astype(np.float64)
    x = X.reshape(BATCH, -1).astype(np.float64)
    covariance = np.outer(flat, flat) + SCALE**2 * np.eye(x.shape[1])
    distance = np.einsum("bi,ij,bj->b", x, np.linalg.inv(covariance), x)
    exact = -0.5 * (distance + np.linalg.slogdet(covariance)[1] + x.shape[1] * np.log(2 * np.pi))
    loss, error = _average(terms, (1, BATCH, 1), number=4000)
    np.testing.assert_allclose(-loss, exact, atol=5 * error.max())


def test_subsets_are_ordered_by_size_then_lexicographically():
    members = [tuple(np.flatnonzero(row)) for row in all_subsets(3)]
    assert members == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert len(all_subsets(10)) == 1023


def test_chunks_of_subsets_change_nothing():
    noise = jax.random.normal(jax.random.key(0), (BATCH, LATENT))
    rows = jnp.arange(BATCH)

    def run(chunk):
        return mopoe_terms(*_experts(), DECODING, noise, rows, 1.0, chunk=chunk).loss

    np.testing.assert_allclose(run(3), run(64), rtol=1e-5)


def test_the_doubly_reparametrised_gradient_has_the_right_mean():
    """With one modality it is an unbiased gradient of the importance-weighted bound, and a less noisy one."""
    mean, log_variance = (array[:, :1] for array in _experts())
    decoding = DECODING._replace(modalities=MODALITIES[:1], rescaling=(1.0,))

    def gradients(estimator, number=4000):
        family = Family("normal", estimator)

        def loss(mean, noise):
            return mmvae_terms(mean, log_variance, decoding, noise, jnp.zeros(LATENT), family).mean()

        keys = jax.random.split(jax.random.key(1), number)

        def draw(key):
            return jax.grad(loss)(mean, jax.random.normal(key, (1, 8, BATCH, LATENT)))

        return np.asarray(jax.jit(lambda keys: jax.lax.map(draw, keys, batch_size=100))(keys))

    plain, double = gradients("iwae"), gradients("dreg")
    error = np.sqrt((plain.var(axis=0) + double.var(axis=0)) / len(plain))
    np.testing.assert_array_less(np.abs(plain.mean(axis=0) - double.mean(axis=0)), 5 * error)
    assert double.var(axis=0).mean() < 0.7 * plain.var(axis=0).mean()


def test_mixture_of_products_is_the_restated_one():
    """log 1/7 Σ_S N(z; μ_S, σ_S²), with the prior as one more expert of the whole set."""
    mean, log_variance = (np.asarray(array, np.float64) for array in _experts())
    z, subsets = np.random.default_rng(2).normal(size=(BATCH, 5, LATENT)), all_subsets(3)
    terms = []
    for members in subsets:
        precision = np.exp(-log_variance)[:, members]
        total = precision.sum(axis=1) + members.all()
        location = (precision * mean[:, members]).sum(axis=1) / total
        square = (z - location[:, None]) ** 2 * total[:, None]
        terms.append(-0.5 * (square - np.log(total)[:, None] + np.log(2 * np.pi)).sum(axis=-1))
    expected = np.logaddexp.reduce(terms, axis=0) - np.log(7)
    found = mixture_of_products_log_prob(
        jnp.asarray(z, jnp.float32), *_experts(), subsets, 0.0, lambda members: members.all(axis=-1), chunk=3
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_private_latents_of_mopoe_are_decoded_and_weighed():
    """With decoders that are blind to them they only cost their divergence."""
    rng = np.random.default_rng(3)
    own_mean, own_log_variance = (jnp.asarray(rng.normal(size=(BATCH, 3, 2)), jnp.float32) for _ in range(2))
    noise, rows = jax.random.normal(jax.random.key(0), (BATCH, LATENT)), jnp.arange(BATCH)
    private = PrivateLatents(own_mean, own_log_variance, jnp.zeros((3, BATCH, 2)), 0.5)
    both = mopoe_terms(*_experts(), DECODING, noise, rows, 2.0, private=private)
    joint = mopoe_terms(*_experts(), DECODING, noise, rows, 2.0)
    np.testing.assert_allclose(both.reconstruction, joint.reconstruction, rtol=1e-5)
    divergence = 0.5 * (own_mean**2 + jnp.exp(own_log_variance) - 1 - own_log_variance).sum(axis=(1, 2))
    np.testing.assert_allclose(both.regulariser - joint.regulariser, 2.0 * 0.5 * divergence, rtol=1e-4)
