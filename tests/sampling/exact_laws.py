"""Laws with known answers, and the call that samples them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.mixtures import GaussianMixture
from sbm_jax.sampling import bind_context, sample
from sbm_jax.sde import VP
from sbm_jax.types import Context

VP20 = VP(0.1, 20.0)


def make_mixture(components: int, modalities: int, size: int, seed: int = 0) -> GaussianMixture:
    """A mixture whose entries have mean 0 and variance 1, with correlated modalities in every component."""
    rng = np.random.default_rng(seed)
    entries = modalities * size
    weights = rng.dirichlet(np.full(components, 4.0))
    means = rng.normal(size=(components, entries))
    means -= weights @ means
    factors = 0.4 * rng.normal(size=(components, entries, 3))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.2 * np.eye(entries)
    scale = 1 / np.sqrt(weights @ (np.einsum("kii->ki", covariances) + means**2))
    means, covariances = means * scale, covariances * scale[:, None] * scale
    arrays = (weights, means.reshape(components, modalities, size), covariances)
    return GaussianMixture(*(jnp.asarray(array, jnp.float32) for array in arrays))


draw_exactly = jax.jit(GaussianMixture.sample, static_argnums=2)
responsibilities = jax.jit(GaussianMixture.responsibilities)


@functools.partial(jax.jit, static_argnames=("sde", "options", "shared"))
def draw(mixture, key, z, observed, options, sde=VP20, shared=True):
    """Sample with the exact score; `observed` [M] for all rows, or [B, M] with `shared=False`."""
    _, modalities, size = z.shape
    context = Context(jnp.broadcast_to(observed, (len(z), modalities)), jnp.ones((modalities, size), bool))
    score_fn = mixture.score_fn(sde, bind_context(options, context), shared_times=shared)
    return sample(score_fn, sde, key, z, context, options)
