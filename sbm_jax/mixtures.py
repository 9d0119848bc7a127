"""Gaussian mixtures over several modalities, whose diffused scores and conditionals are known exactly."""

import functools
import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.sde import SDE
from sbm_jax.types import Array, Context, Key, ScoreFn

# Accelerators would otherwise multiply with ten bits of mantissa.
_einsum = functools.partial(jnp.einsum, precision="highest")


class Conditional(NamedTuple):
    """The law of the unobserved modalities given the observed: a mixture per row.

    Attributes:
      weights: posterior probabilities of the components [B, K].
      means: means [B, K, U, D] of the U unobserved modalities.
      covariances: covariances [K, U*D, U*D].
    """

    weights: Array
    means: Array
    covariances: Array


@flax.struct.dataclass
class GaussianMixture:
    """A mixture Σ_k w_k N(μ_k, Σ_k) over M modalities of D entries.

    Attributes:
      weights: w [K], summing to 1.
      means: μ [K, M, D].
      covariances: Σ [K, M*D, M*D], positive definite, in the order of `means.reshape(K, M * D)`.
    """

    weights: Array
    means: Array
    covariances: Array

    def sample(self, key: Key, num_samples: int) -> tuple[Array, Array]:
        """Return samples [N, M, D] and their components, int [N]."""
        component_key, noise_key = jax.random.split(key)
        components = jax.random.categorical(component_key, jnp.log(self.weights), shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, *self.means.shape[1:]))
        factors = jnp.linalg.cholesky(self.covariances)[components]
        flat = _einsum("nij,nj->ni", factors, noise.reshape(num_samples, -1))
        return self.means[components] + flat.reshape(noise.shape), components

    def score(self, sde: SDE, z: Array, t: Array) -> Array:
        """Return the exact score of the latents diffused to a time per modality.

        Component k of z is N(α μ_k, diag(α) Σ_k diag(α) + diag(σ²)), with the α and σ of each entry's own
        modality.

        Args:
          sde: the process.
          z: diffused latents [B, M, D].
          t: times [B, M], or [1, M] for all rows, which is much cheaper.

        Returns:
          ∇_z log p_t(z) [B, M, D], at all entries.
        """
        rows, _, size = z.shape
        # One α and σ per entry: [B or 1, 1, M * D].
        alpha, sigma = (jnp.repeat(value, size, axis=1)[:, None] for value in sde.marginal(t))
        covariances = alpha[..., :, None] * self.covariances[None] * alpha[..., None, :]
        covariances = covariances + (sigma**2)[..., None] * jnp.eye(alpha.shape[-1])[None, None]
        means = alpha * self.means.reshape(1, len(self.weights), -1)
        log_density, gradient = _gaussians(z.reshape(rows, 1, -1) - means, covariances)
        posterior = jax.nn.softmax(log_density + jnp.log(self.weights)[None], axis=1)
        return _einsum("bk,bki->bi", posterior, gradient).reshape(z.shape)

    def score_fn(self, sde: SDE, context: Context, shared_times: bool = False) -> ScoreFn:
        """Return the exact score as a `ScoreFn`: 0 at observed and padded entries of the context.

        Args:
          sde: the process.
          context: observed sets and padding; entries that are padding must be independent of all others.
          shared_times: whether all rows have the same observed set, so that their times agree.
        """

        def score(key: Key, z: Array, t: Array) -> Array:
            del key
            return jnp.where(context.free, self.score(sde, z, t[:1] if shared_times else t), 0.0)

        return score

    def responsibilities(self, z: Array, modalities: np.ndarray | None = None) -> Array:
        """Return p(k | z_A), the posterior probabilities of the components [B, K].

        Args:
          z: clean latents [B, M, D].
          modalities: bool [M], the set A; all where None.
        """
        entries = self._entries(modalities)
        difference = z.reshape(len(z), 1, -1) - self.means.reshape(1, len(self.weights), -1)
        covariances = self.covariances[:, entries][:, :, entries]
        log_density, _ = _gaussians(difference[..., entries], covariances[None])
        return jax.nn.softmax(log_density + jnp.log(self.weights)[None], axis=1)

    def condition(self, z: Array, observed: np.ndarray) -> Conditional:
        """Return the law of the unobserved modalities given the observed.

        Args:
          z: latents [B, M, D]; unobserved entries are not read.
          observed: bool [M], the same set for all rows.

        Raises:
          SbmError: if all modalities are observed.
        """
        observed = np.asarray(observed, bool)
        if observed.all():
            raise SbmError("condition: nothing is left to describe, because every modality is observed; leave one out.")
        given, free = self._entries(observed), self._entries(~observed)
        count, num_free = len(self.weights), int((~observed).sum())
        means = self.means.reshape(1, count, -1)
        z = jnp.where(observed[None, :, None], z, 0.0).reshape(len(z), 1, -1)
        cross = self.covariances[:, free][:, :, given]
        gain = jnp.linalg.solve(self.covariances[:, given][:, :, given], jnp.swapaxes(cross, 1, 2))
        shift = _einsum("bko,kou->bku", (z - means)[..., given], gain)
        covariances = self.covariances[:, free][:, :, free] - _einsum("kuo,kov->kuv", cross, gain)
        weights = self.responsibilities(z.reshape(len(z), *self.means.shape[1:]), observed)
        conditional_means = (means[..., free] + shift).reshape(len(z), count, num_free, -1)
        return Conditional(weights, conditional_means, covariances)

    def _entries(self, modalities: np.ndarray | None) -> np.ndarray:
        """Return the flat positions of the entries of some modalities."""
        _, num_modalities, size = self.means.shape
        chosen = np.ones(num_modalities, bool) if modalities is None else np.asarray(modalities, bool)
        return np.flatnonzero(np.repeat(chosen, size))


def _gaussians(difference: Array, covariances: Array) -> tuple[Array, Array]:
    """Return log N(x; μ_k, Σ_k) and its gradient for all rows and components.

    Args:
      difference: x - μ_k [B, K, n].
      covariances: Σ_k [B or 1, K, n, n].

    Returns:
      log densities [B, K] and gradients -Σ_k⁻¹ (x - μ_k) [B, K, n].
    """
    factors = jnp.linalg.cholesky(covariances)
    identity = jnp.broadcast_to(jnp.eye(covariances.shape[-1]), covariances.shape)
    whitening = jax.lax.linalg.triangular_solve(factors, identity, left_side=True, lower=True)  # L⁻¹
    rows, whitening = ("", whitening[0]) if len(whitening) == 1 else ("b", whitening)
    white = _einsum(f"{rows}kij,bkj->bki", whitening, difference)
    gradient = -_einsum(f"{rows}kji,bkj->bki", whitening, white)
    log_determinant = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)), axis=-1)
    constant = 0.5 * difference.shape[-1] * math.log(2 * math.pi)
    return -0.5 * jnp.sum(white**2, axis=-1) - log_determinant - constant, gradient
