"""Modalities of one and of several tokens in one network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.losses.score_matching import denoising_terms, draw
from sbm_jax.networks.energy import PairEnergy
from sbm_jax.networks.score import ScoreNetworkConfig, make_score_model
from sbm_jax.networks.unet import UNet
from sbm_jax.sde import VP
from sbm_jax.systems.latents import token_owners, token_sizes, valid_entries
from sbm_jax.types import Context, Modality

MODALITIES = (
    Modality("short", (1,), 4, "mlp"),
    Modality("long", (1,), 6, "mlp", num_tokens=3),
    Modality("pair", (1,), 6, "mlp", num_tokens=2),
)
SMALL = {"transformer": ScoreNetworkConfig("transformer", 32, 2), "mlp": ScoreNetworkConfig("mlp", 32, 1)}
OBSERVED = jnp.array([[False, True, False], [True, False, True], [True] * 3, [False] * 3])
PRESENT = jnp.array([[True] * 3, [False, True, True], [True] * 3, [True, True, False]])


def _context(modalities, observed, present=None):
    return Context(observed, jnp.asarray(valid_entries(modalities)), present, owner=token_owners(modalities))


def _model(name, modalities=MODALITIES):
    return make_score_model(SMALL[name], VP(), "velocity", token_sizes(modalities), token_owners(modalities))


def _random_params(model, context):
    rng = np.random.default_rng(0)
    params = jax.jit(model.init)(jax.random.key(0), context)
    return jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params)


def _latents(context, rows=4):
    return jnp.where(context.valid[None], jax.random.normal(jax.random.key(2), (rows, *context.valid.shape)), 0.0)


@pytest.mark.parametrize("name", ["transformer", "mlp"])
@pytest.mark.parametrize("num_free", [None, 3, 2])
@pytest.mark.parametrize("with_present", [False, True])
def test_bound_score_equals_the_networks_own_output(name, num_free, with_present):
    """Caching what is observed, and leaving observed tokens out, changes nothing; observed and padded entries are 0."""
    rows = slice(0, 3 if num_free == 2 else 4)
    observed, present = OBSERVED[rows], PRESENT[rows]
    context = _context(MODALITIES, observed, present if with_present else None)
    model, z = _model(name), _latents(context, len(observed))
    params = _random_params(model, context)
    t = jnp.where(observed, 0.0, 0.3)
    expected = -jax.jit(model.noise)(params, z, t, context) / model.sde.marginal(jnp.float32(0.3))[1]

    @jax.jit
    def score(params, elsewhere):
        return model.bind(params, context, z, num_free)(jax.random.key(0), elsewhere, t)

    given = context.spread(observed)
    found = np.asarray(score(params, jnp.where(given, 7.0, z)))
    counted = context.free & context.spread(present) if with_present else context.free
    np.testing.assert_allclose(found[counted], np.asarray(expected)[counted], rtol=2e-4, atol=2e-5)
    assert not found[~np.asarray(context.free)].any()
    assert found[np.asarray(context.free)].all()


def test_a_modality_alone_is_all_of_its_tokens_together():
    """Nothing present: each modality gets what it would if the others were absent, with and without a cache."""
    model, nothing = _model("transformer"), jnp.zeros((1, 3), bool)
    alone = _context(MODALITIES, nothing, nothing)
    params, z, t = _random_params(model, alone), _latents(alone, 1), jnp.full((1, 3), 0.4)
    together = jax.jit(model.noise)(params, z, t, alone)
    bound = jax.jit(lambda params: model.bind(params, alone, z)(jax.random.key(0), z, t))(params)
    owner = np.array(alone.owner)
    for m in range(3):
        context = alone.replace(present=jnp.arange(3)[None] == m)
        one = jax.jit(model.noise)(params, z, t, context)
        np.testing.assert_allclose(together[:, owner == m], one[:, owner == m], rtol=1e-4, atol=1e-5)
    valid, sigma = alone.valid, model.sde.marginal(jnp.float32(0.4))[1]
    np.testing.assert_allclose(bound[0][valid], (-together / sigma)[0][valid], rtol=1e-4, atol=1e-5)
    one_token = jax.jit(model.noise)(params, z.at[:, 1].add(1.0), t, alone)
    assert not np.allclose(one_token[:, 2], together[:, 2])  # of the same modality
    np.testing.assert_allclose(one_token[:, owner != 1], together[:, owner != 1], rtol=1e-5, atol=1e-6)


def test_the_order_of_modalities_and_padding_change_nothing():
    other = (*reversed(MODALITIES), Modality("wide", (1,), 9, "mlp"))
    order = [5, 2, 3, 4, 0, 1]  # where the tokens of `MODALITIES` are in `other`
    first, second = _model("transformer"), _model("transformer", other)
    context = _context(MODALITIES, OBSERVED)
    present = jnp.ones((4, 4), bool).at[:, 3].set(False)
    observed = jnp.concatenate([OBSERVED[:, ::-1], jnp.zeros((4, 1), bool)], axis=1)
    wide = _context(other, observed, present)
    params = _random_params(second, wide)
    size = context.valid.shape[1]
    own = {
        **params,
        "into_tokens": {
            "kernel": params["into_tokens"]["kernel"][jnp.array(order), :size],
            "identity": params["into_tokens"]["identity"][jnp.array(order)],
        },
        "out_of_tokens": {"kernel": params["out_of_tokens"]["kernel"][jnp.array(order), :, :size]},
    }
    z = _latents(context)
    moved = jnp.zeros((4, *wide.valid.shape)).at[:, jnp.array(order), :size].set(z)
    times = jnp.where(OBSERVED, 0.0, 0.3), jnp.where(observed, 0.0, 0.3)
    expected = jax.jit(first.noise)(own, z, times[0], context)
    found = jax.jit(second.noise)(params, moved, times[1], wide)[:, jnp.array(order), :size]
    free = np.asarray(context.free)
    np.testing.assert_allclose(np.asarray(found)[free], np.asarray(expected)[free], rtol=1e-4, atol=1e-5)


def test_a_short_latent_has_half_of_the_loss_beside_many_tokens():
    modalities = (Modality("a", (1,), 16, "mlp"), Modality("b", (1,), 64, "mlp", num_tokens=8))
    context = _context(modalities, jnp.zeros((4, 2), bool))
    z = _latents(context)
    draws = draw(jax.random.key(1), z.shape, 1.0, owner=context.owner)
    assert draws.observed.shape == (4, 2)
    wrong = jnp.zeros(context.valid.shape).at[0].set(1.0)
    _, error = denoising_terms(lambda *_: draws.noise + wrong[None], VP(), z, context, draws, "noise")
    np.testing.assert_allclose(error, 0.5, rtol=1e-6)


def test_pairs_of_energies_start_with_one_variance():
    """However many tokens a modality has, it enters a pair with the same weight."""
    context = _context(MODALITIES, jnp.zeros((400, 3), bool))
    energy = PairEnergy(64, 1, token_sizes(MODALITIES), context.owner)
    z, t, pairs = _latents(context, 400), jnp.zeros((400, 3)), jnp.zeros((400, 1, 2), int)
    _, state = energy.init_with_output(jax.random.key(0), z, t, z, t, pairs)
    kernel = state["params"]["first"]["kernel"]
    each = np.asarray(jnp.einsum("bnd,ndw->bnw", z, kernel))
    for m, count in enumerate((1, 3, 2)):
        tokens = each[:, np.array(context.owner) == m].sum(axis=1) / np.sqrt(count)
        np.testing.assert_allclose(tokens.std(), 1.0, rtol=0.15)
    energies = energy.apply(state, z, t, z, t, jnp.array([[[0, 1], [1, 2]]] * 400))
    moved = energy.apply(state, z.at[:, 3].add(1.0), t, z, t, jnp.array([[[0, 1], [1, 2]]] * 400))
    np.testing.assert_array_equal(energies[:, 0], moved[:, 0])  # the last token of the second modality, not observed
    assert not np.allclose(energies[:, 1], moved[:, 1])


def test_the_unet_takes_spatial_latents_as_maps():
    """Two modalities of 4 x 4 tokens with 3 channels are, to it, six modalities with a map of one channel each."""
    spatial, flat = UNet(8, (1,), mask_channels=False, owner=(0,) * 16 + (1,) * 16), UNet(8, (1,), mask_channels=False)
    maps = jax.random.normal(jax.random.key(1), (2, 6, 16))
    tokens = maps.reshape(2, 2, 3, 16).transpose(0, 1, 3, 2).reshape(2, 32, 3)
    times, nothing = jnp.full((2, 6), 0.5), jnp.zeros((2, 6), bool)
    params = jax.jit(flat.init)(jax.random.key(0), maps, times, nothing)
    expected = jax.jit(flat.apply)(params, maps, times, nothing)
    found = jax.jit(spatial.apply)(params, tokens, times[:, :2], nothing[:, :2])
    assert found.shape == tokens.shape
    found = found.reshape(2, 2, 16, 3).transpose(0, 1, 3, 2).reshape(maps.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("owner", "message"), [((0, 1, 1, 1, 1), r"\[1, 4\] tokens"), ((0, 0, 0), "num_tokens 3")])
def test_the_unet_refuses_latents_that_make_no_maps(owner, message):
    z, modalities = jnp.zeros((1, len(owner), 4)), owner[-1] + 1
    with pytest.raises(SbmError, match=message):
        UNet(8, (1,), owner=owner).init(
            jax.random.key(0), z, jnp.zeros((1, modalities)), jnp.zeros((1, modalities), bool)
        )


def test_tokens_must_divide_a_latent():
    with pytest.raises(SbmError, match=r"num_tokens.*divisor of latent_size \(6\)"):
        Modality("a", (1,), 6, num_tokens=4)
