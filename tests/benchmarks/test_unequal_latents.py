"""The known law of a short latent and a long one in several tokens, and what is measured of samples."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.unequal_latents import FactorLaw, measure, train
from sbm_jax.sde import VP
from sbm_jax.systems.latents import pack, unpack
from sbm_jax.types import Modality

SMALL = FactorLaw((Modality("short", (1,), 8, "mlp"), Modality("long", (1,), 128, "mlp", num_tokens=4)), (0.5, 0.2), 3)
SDE = VP()


def _exact(law, spread=1.0):
    """A model with the exact score of one modality given the other, of a law whose variances are `spread` of it."""

    def bind(params, context, z, num_free):
        del params, num_free
        given = int(np.asarray(context.observed)[0].argmax())
        names = [modality.name for modality in law.modalities]
        known, covariance = law.factors_given(given, unpack(z, law.modalities)[names[given]])
        w, noise = law.loadings[1 - given], 1 - law.shared[1 - given]
        mean = jnp.asarray(known @ w.T, jnp.float32)
        covariance = jnp.asarray(spread * (w @ covariance @ w.T + noise * np.eye(len(w))), jnp.float32)

        def score(key, z, t):
            del key
            alpha, sigma = SDE.marginal(t.max())
            x = unpack(z, law.modalities)[names[1 - given]]
            spread = alpha**2 * covariance + sigma**2 * jnp.eye(len(covariance))
            own = -jnp.linalg.solve(spread, (x - alpha * mean).T).T
            return jnp.where(context.free, pack({names[1 - given]: own}, law.modalities), 0.0)

        return score

    return types.SimpleNamespace(bind=bind, sde=SDE)


@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("spread", [1.0, 1.5])
def test_samples_of_the_exact_law_measure_as_exact(given, spread):
    found = measure(SMALL, _exact(SMALL, spread), {}, given, 24)
    assert found["mean_error"] < 0.1
    np.testing.assert_allclose(found["factor_variance"], spread, rtol=0.15)
    np.testing.assert_allclose(found["own_variance"], spread, rtol=0.1)


@pytest.mark.slow
def test_both_directions_are_learned():
    model = SMALL.model(64, 1)
    params = train(SMALL, model, 4000, 128)
    for given in range(2):
        found = measure(SMALL, model, params, given, 48)
        assert found["mean_error"] < 0.2, (given, found)
        assert abs(found["factor_variance"] - 1) < 0.25, (given, found)
        assert abs(found["own_variance"] - 1) < 0.25, (given, found)


def test_draws_have_the_law_that_is_said():
    x = unpack(SMALL.sample(jax.random.key(0), 4000), SMALL.modalities)
    both = np.concatenate([x["short"], x["long"]], axis=1)
    w = np.concatenate(SMALL.loadings)
    own = np.repeat(1 - np.array(SMALL.shared), [8, 128])
    np.testing.assert_allclose(np.cov(both.T), w @ w.T + np.diag(own), atol=0.12)
