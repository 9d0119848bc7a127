import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.score import ScoreNetworkConfig, make_score_model
from sbm_jax.parameterization import PREDICTIONS
from sbm_jax.sde import VE, VP, SDEConfig, SubVP, make_sde
from sbm_jax.types import Context

VALID = jnp.array([[True] * 4, [True] * 3 + [False], [True] * 4])
OBSERVED = jnp.array([[True, False, False], [False, False, False], [True, True, True]])
CONTEXT = Context(OBSERVED, VALID)
SMALL = {
    "transformer": ScoreNetworkConfig("transformer", 32, 1),
    "mlp": ScoreNetworkConfig("mlp", 32, 1),
    "unet": ScoreNetworkConfig("unet", 8),
}


def _random_params(model, context=CONTEXT):
    """Fresh parameters of networks that start at zero say nothing: perturb them."""
    params = jax.jit(model.init)(jax.random.key(0), context)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params)


def _noise(model, params, z, t, context, dropout_key=None):
    return jax.jit(model.noise)(params, z, t, context, dropout_key)


def _bound_score(model, params, z, t, context, z_observed, num_free=None):
    def score(params, z, t, context, z_observed):
        return model.bind(params, context, z_observed, num_free)(jax.random.key(0), z, t)

    return jax.jit(score)(params, z, t, context, z_observed)


@pytest.mark.parametrize("name", ["transformer", "mlp"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_score_is_exactly_zero_where_nothing_is_sampled(name, prediction):
    model = make_score_model(SMALL[name], VP(), prediction)
    z = jax.random.normal(jax.random.key(2), (3, 3, 4))
    t = jnp.where(OBSERVED, 0.0, 0.5)
    score = _bound_score(model, _random_params(model), z, t, CONTEXT, z)
    free = np.asarray(CONTEXT.free)
    assert not np.asarray(score)[~free].any()
    assert np.asarray(score)[free].all()
    assert np.isfinite(score).all()


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()], ids=str)
def test_predictions_agree_on_what_they_mean(sde):
    """An oracle's ε, v and score outputs are all turned back into the same ε."""
    z0, noise = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    t = jnp.full((3, 3), 0.4)
    alpha, sigma = (x[:, :, None] for x in sde.marginal(t))
    z = alpha * z0 + sigma * noise
    norm = jnp.sqrt(alpha**2 + sigma**2)
    outputs = {"noise": noise, "velocity": (alpha * noise - sigma * z0) / norm, "score": -noise / sigma}
    for prediction, output in outputs.items():
        model = make_score_model(SMALL["mlp"], sde, prediction)
        network = type("Oracle", (), {"apply": staticmethod(lambda *a, output=output, **k: output)})()
        object.__setattr__(model, "network", network)
        context = Context(jnp.zeros((3, 3), bool), jnp.ones((3, 4), bool))
        np.testing.assert_allclose(model.noise({}, z, t, context), noise, rtol=1e-3, atol=1e-4)


def test_observed_tokens_do_not_depend_on_the_others():
    """What the transformer computes from observed tokens is the same at every step of a sampler."""
    model = make_score_model(SMALL["transformer"], VP(), "noise")
    params = _random_params(model)
    t = jnp.where(OBSERVED, 0.0, 0.5)
    z = jax.random.normal(jax.random.key(2), (3, 3, 4))
    moved = jnp.where(OBSERVED[:, :, None], z, z + 1.0)
    apply = jax.jit(model.network.apply)
    outputs = [apply({"params": params}, x, t, OBSERVED) for x in (z, moved)]
    np.testing.assert_allclose(outputs[0][0, 0], outputs[1][0, 0], rtol=1e-6)
    assert not np.allclose(outputs[0][0, 1], outputs[1][0, 1])


@pytest.mark.parametrize("name", ["transformer", "mlp"])
def test_absent_modalities_have_no_influence(name):
    model = make_score_model(SMALL[name], VP(), "noise")
    present = jnp.array([[True, True, False]] * 3)
    context = Context(jnp.zeros((3, 3), bool), VALID, present)
    params = _random_params(model, context)
    z = jax.random.normal(jax.random.key(2), (3, 3, 4))
    t = jnp.full((3, 3), 0.5)
    first = _noise(model, params, z, t, context)
    second = _noise(model, params, z.at[:, 2].add(5.0), t, context)
    np.testing.assert_allclose(first[:, :2], second[:, :2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["transformer", "mlp"])
@pytest.mark.parametrize("num_free", [None, 2])
@pytest.mark.parametrize("with_present", [False, True])
def test_bound_score_equals_the_networks_own_output(name, num_free, with_present):
    """Caching what is observed, and leaving observed tokens out, changes nothing."""
    observed = jnp.array([[False, True, False], [True, True, False], [True, True, True], [True, False, False]])
    present = jnp.array([[True, True, True], [True, False, True], [True] * 3, [True, True, False]])
    context = Context(observed, VALID, present if with_present else None, jax.random.normal(jax.random.key(5), (4, 6)))
    model = make_score_model(SMALL[name], VP(), "velocity")
    params = _random_params(model, context)
    z = jnp.where(VALID[None], jax.random.normal(jax.random.key(2), (4, 3, 4)), 0.0)
    t = jnp.where(observed, 0.0, 0.3)
    sigma = model.sde.marginal(jnp.float32(0.3))[1]
    expected = jnp.where(context.free, -_noise(model, params, z, t, context) / sigma, 0.0)
    elsewhere = jnp.where(observed[:, :, None], 7.0, z)
    counted = context.free if not with_present else context.free & present[:, :, None]
    score = _bound_score(model, params, elsewhere, t, context, z, num_free)
    np.testing.assert_allclose(np.asarray(score)[counted], np.asarray(expected)[counted], rtol=2e-4, atol=2e-5)


def test_bfloat16_products_are_summed_in_float32():
    models = {
        dtype: make_score_model(ScoreNetworkConfig("transformer", 64, 2, dtype=dtype), VP(), "noise")
        for dtype in ("float32", "bfloat16")
    }
    params = _random_params(models["float32"])
    z, t = jax.random.normal(jax.random.key(2), (3, 3, 4)), jnp.where(OBSERVED, 0.0, 0.5)
    outputs = {dtype: _noise(model, params, z, t, CONTEXT) for dtype, model in models.items()}
    scale = float(jnp.abs(outputs["float32"]).max())
    difference = float(jnp.abs(outputs["bfloat16"] - outputs["float32"]).max())
    assert outputs["bfloat16"].dtype == jnp.float32
    assert 0 < difference < 0.06 * scale
    text = jax.jit(models["bfloat16"].noise).lower(params, z, t, CONTEXT).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line and "bf16" in line]
    assert products
    assert all("-> tensor" in line and "bf16" not in line.rsplit("->", 1)[1] for line in products)


def test_dropout_acts_in_training_only():
    model = make_score_model(ScoreNetworkConfig("mlp", 32, 1, dropout=0.5), VP(), "noise")
    params = _random_params(model)
    z, t = jnp.ones((3, 3, 4)), jnp.full((3, 3), 0.5)
    still = [_noise(model, params, z, t, CONTEXT) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert not np.allclose(still[0], _noise(model, params, z, t, CONTEXT, jax.random.key(3)))


@pytest.mark.parametrize(
    ("config", "prediction", "message"),
    [
        (ScoreNetworkConfig("transformr"), "noise", "Did you mean 'transformer'"),
        (ScoreNetworkConfig("transformer", 100), "noise", "multiple of 32"),
        (ScoreNetworkConfig("mlp"), "nois", "Did you mean 'noise'"),
    ],
)
def test_bad_choices_are_refused(config, prediction, message):
    with pytest.raises(SbmError, match=message):
        make_score_model(config, VP(), prediction)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_score_model(ScoreNetworkConfig("transformr"), VP(), "noise"),
        lambda: make_score_model(ScoreNetworkConfig("transformer", 100), VP(), "noise"),
        lambda: make_score_model(ScoreNetworkConfig("mlp"), VP(), "nois"),
        lambda: ScoreNetworkConfig(width=0),
        lambda: ScoreNetworkConfig(dropout=1.0),
        lambda: make_sde(SDEConfig("vpp")),
        lambda: make_sde(SDEConfig("vp", 2.0, 1.0)),
    ],
)
def test_messages_name_no_group_that_may_be_another(make):
    """A prior, MLD and diffusion decoders have networks and processes of their own."""
    with pytest.raises(SbmError) as caught:
        make()
    assert "config" not in str(caught.value)
    assert "score." not in str(caught.value)
