import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.parameterization import PREDICTIONS, Parameterization, scaled
from sbm_jax.sde import VE, VP, SubVP


def _outputs(data, noise, alpha, sigma):
    """What a perfect network returns for each prediction."""
    norm = np.sqrt(alpha**2 + sigma**2)
    return {
        "noise": noise,
        "velocity": (alpha * noise - sigma * data) / norm,
        "data": data,
        "score": -noise / sigma,
    }


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()], ids=str)
@pytest.mark.parametrize("shape", [(4, 3, 2), (2, 6, 5, 3)], ids=["latents", "images"])
def test_all_predictions_mean_the_same_noise_and_score(sde, shape):
    data, noise = np.asarray(jax.random.normal(jax.random.key(0), (2, *shape)))
    times = np.linspace(0.2, 0.9, shape[0], dtype=np.float32).reshape(-1, *(1,) * (len(shape) - 1))
    alpha, sigma = (np.asarray(value) for value in sde.marginal(jnp.asarray(times)))
    z = scaled(alpha * data + sigma * noise, alpha, sigma)
    outputs = _outputs(data, noise, alpha, sigma)
    assert set(outputs) == set(PREDICTIONS)
    for prediction, output in outputs.items():
        meaning = Parameterization(prediction)
        np.testing.assert_allclose(meaning.noise(output, z, alpha, sigma), noise, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(meaning.score(output, z, alpha, sigma), -noise / sigma, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clean_entries_have_finite_derivatives(prediction):
    """Their noise is not used, but a derivative that is no number would be."""
    noise = Parameterization(prediction).noise

    def used(output):
        predicted = noise(output, jnp.ones(2), jnp.array([1.0, 0.8]), jnp.array([0.0, 0.6]))
        return jnp.where(jnp.array([False, True]), predicted, 0.0).sum()

    derivative = np.asarray(jax.grad(used)(jnp.ones(2)))
    assert np.isfinite(derivative).all()
    assert derivative[0] == 0
    assert derivative[1] != 0


def test_unknown_predictions_are_refused():
    with pytest.raises(SbmError, match="Did you mean 'noise'"):
        Parameterization("nois")
