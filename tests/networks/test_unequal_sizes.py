"""Latents of very different sizes: a short one starts, and weighs, as much as a long one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbm_jax.losses.score_matching import denoising_terms, draw
from sbm_jax.networks.base import IntoTokens
from sbm_jax.networks.energy import JointPerceptron, PairEnergy
from sbm_jax.networks.score import ScoreNetworkConfig, make_score_model
from sbm_jax.sampling import SamplerOptions, sample
from sbm_jax.sde import VP
from sbm_jax.systems.latents import valid_entries
from sbm_jax.types import Context, Modality

SIZES = (16, 256)
VALID = jnp.asarray(valid_entries([Modality(f"m{size}", (1,), size, "mlp") for size in SIZES]))


def _latents(key, batch):
    return jnp.where(VALID[None], jax.random.normal(key, (batch, *VALID.shape)), 0.0)


def test_tokens_start_with_one_variance():
    z = _latents(jax.random.key(0), 400)
    tokens, params = IntoTokens(64, SIZES).init_with_output(jax.random.key(1), z)
    spread = np.asarray(tokens - params["params"]["identity"][None]).std(axis=(0, 2))
    np.testing.assert_allclose(spread, 1.0, rtol=0.1)


def test_sizes_that_are_equal_change_nothing():
    z = jnp.zeros((1, 2, 256))
    for make in (lambda sizes: IntoTokens(8, sizes), lambda sizes: JointPerceptron(8, 1, 1, sizes)):
        one, other = (make(sizes).init(jax.random.key(0), z) for sizes in ((), (256, 256)))
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", ["mlp", "mlp_unet"])
def test_perceptrons_start_with_one_variance(name):
    config = ScoreNetworkConfig(name, 96, 1)
    context = Context(jnp.zeros((1, 2), bool), VALID)
    params = make_score_model(config, VP(), "noise", SIZES).init(jax.random.key(0), context)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.shape == (VALID.size, 96)]
    (kernel,) = kernels
    z = _latents(jax.random.key(1), 400).reshape(400, -1)
    np.testing.assert_allclose(np.asarray(z @ kernel).std(), 1.0, rtol=0.1)


def test_energies_scale_by_valid_entries():
    kernel = JointPerceptron(512, 1, 1, SIZES).init(jax.random.key(0), jnp.zeros((1, *VALID.shape)))["params"]
    first = next(leaf for leaf in jax.tree.leaves(kernel) if leaf.shape == (VALID.size, 512))
    z = _latents(jax.random.key(1), 400).reshape(400, -1)
    np.testing.assert_allclose(np.asarray(z @ first).std(), 1.0, rtol=0.1)
    zeros, times, pairs = jnp.zeros((1, *VALID.shape)), jnp.zeros((1, 2)), jnp.zeros((1, 1, 2), int)
    pair = PairEnergy(64, 1, SIZES).init(jax.random.key(0), zeros, times, zeros, times, pairs)["params"]
    for place in ("first", "second"):
        spread = np.asarray(jnp.where(VALID[:, :, None], pair[place]["kernel"], jnp.nan))
        np.testing.assert_allclose(np.nanstd(spread, axis=(1, 2)) * np.sqrt(SIZES), 1.0, rtol=0.1)


def test_a_short_latent_has_half_of_the_loss_of_two():
    """An error of 1 in every entry of the short one, and of none in the long one."""
    z = _latents(jax.random.key(0), 4)
    draws = draw(jax.random.key(1), z.shape, 1.0)
    wrong = jnp.array([1.0, 0.0])[None, :, None]
    context = Context(jnp.zeros((4, 2), bool), VALID)
    _, error = denoising_terms(lambda *_: draws.noise + wrong, VP(), z, context, draws, "noise")
    np.testing.assert_allclose(error, 0.5, rtol=1e-6)


@pytest.mark.slow
def test_a_joint_gaussian_of_unequal_latents_is_learned_in_both_directions():
    """The first 16 entries of the long latent repeat the short one, up to noise."""
    model = make_score_model(ScoreNetworkConfig("transformer", 64, 2), VP(), "velocity", SIZES)

    def latents(key, batch):
        z = _latents(key, batch)
        return z.at[:, 1, :16].set(0.9 * z[:, 0, :16] + 0.19**0.5 * z[:, 1, :16])

    def loss(params, key):
        data_key, draw_key = jax.random.split(key)
        z = latents(data_key, 256)
        draws = draw(draw_key, z.shape, 0.2)
        context = Context(draws.observed, VALID)
        terms, _ = denoising_terms(lambda z, t, c: model.noise(params, z, t, c), VP(), z, context, draws, "noise")
        return terms.mean()

    params = model.init(jax.random.key(0), Context(jnp.zeros((1, 2), bool), VALID))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))

    @jax.jit
    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 3000))
    z = latents(jax.random.key(2), 1000)
    for given in (0, 1):
        context = Context(jnp.broadcast_to(jnp.arange(2)[None] == given, (1000, 2)), VALID)
        score_fn = model.bind(params, context, z)
        drawn = sample(score_fn, VP(), jax.random.key(3), z, context, SamplerOptions(num_steps=20)).z
        correlation = np.mean(np.asarray(drawn[:, 0, :16] * drawn[:, 1, :16]))
        assert abs(correlation - 0.9) < 0.1, given
        assert abs(np.asarray(drawn[:, 1 - given, :16]).var() - 1.0) < 0.15, given
