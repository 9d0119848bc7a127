"""Gaussian mixtures over several modalities, with exact diffused scores and conditionals."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.sde import SDE
from sbm_jax.storage import DAMAGED_ARCHIVE
from sbm_jax.types import Array, Context, Key, ScoreFn

# By default, accelerators multiply with a ten-bit mantissa.
_einsum = functools.partial(jnp.einsum, precision="highest")

# Smaller variances are raised to this: float32 samples of entries of variance 1 cannot resolve them.
_LEAST_VARIANCE = 1e-10


class Conditional(NamedTuple):
    """The distribution of unobserved modalities given the observed ones: a mixture per row, as float64 NumPy arrays.

    Attributes:
      weights: posterior probabilities of the components [B, K].
      means: means [B, K, U, D] of the U unobserved modalities.
      covariances: covariances [K, U*D, U*D].
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class GaussianMixture(flax.struct.PyTreeNode):
    """A mixture Σ_k w_k N(μ_k, Σ_k) over M modalities of D entries, each a single token.

    Attributes:
      weights: w [K], summing to 1.
      means: μ [K, M, D].
      covariances: Σ [K, M*D, M*D], positive definite, in the order of `means.reshape(K, M * D)`.
    """

    weights: Array | np.ndarray
    means: Array | np.ndarray
    covariances: Array | np.ndarray

    def sample(self, key: Key, num_samples: int) -> tuple[Array, Array]:
        """Return samples [N, M, D] and their components, int [N]."""
        component_key, noise_key = jax.random.split(key)
        components = jax.random.categorical(component_key, jnp.log(self.weights), shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, *self.means.shape[1:]))
        factors = jnp.linalg.cholesky(self.covariances)[components]
        flat = _einsum("nij,nj->ni", factors, noise.reshape(num_samples, -1))
        return self.means[components] + flat.reshape(noise.shape), components

    def score(self, sde: SDE, z: Array, t: Array) -> Array:
        """Return the exact score of latents diffused to each modality's own time.

        Component k of z is N(α μ_k, diag(α) Σ_k diag(α) + diag(σ²)), with each entry's α and σ from its modality.

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
          context: observed masks and padding; padded entries must be independent of all others.
          shared_times: whether all rows have the same observed modalities, and thus the same times.
        """

        def score(key: Key, z: Array, t: Array) -> Array:
            del key
            return jnp.where(context.free, self.score(sde, z, t[:1] if shared_times else t), 0.0)

        return score

    def log_density(self, z: Array) -> Array:
        """Return log p(z) [B] of clean latents [B, M, D], in nats."""
        difference = z.reshape(len(z), 1, -1) - self.means.reshape(1, len(self.weights), -1)
        log_density, _ = _gaussians(difference, self.covariances[None])
        return jax.nn.logsumexp(log_density + jnp.log(self.weights)[None], axis=1)

    def responsibilities(self, z: Array) -> Array:
        """Return p(k | z), the posterior probabilities of the components [B, K], given clean latents [B, M, D]."""
        difference = z.reshape(len(z), 1, -1) - self.means.reshape(1, len(self.weights), -1)
        log_density, _ = _gaussians(difference, self.covariances[None])
        return jax.nn.softmax(log_density + jnp.log(self.weights)[None], axis=1)

    def condition(self, z: np.ndarray, observed: np.ndarray) -> Conditional:
        """Return the distribution of the unobserved modalities given the observed ones, in float64.

        Args:
          z: latents [B, M, D]; unobserved entries are ignored.
          observed: bool [M], shared by all rows.

        Raises:
          SbmError: if all modalities are observed.
        """
        observed = np.asarray(observed, bool)
        if observed.all():
            raise SbmError("condition: every modality is observed; expected at least one unobserved. Leave one out.")
        weights, means, covariances = self._float64()
        given = np.repeat(observed, means.shape[2])
        flat_means = means.reshape(len(weights), -1)
        difference = np.asarray(z, np.float64).reshape(len(z), 1, -1)[..., given] - flat_means[None, :, given]
        factors = np.linalg.cholesky(covariances[:, given][:, :, given])
        cross = np.linalg.solve(factors, covariances[:, given][:, :, ~given])  # L⁻¹ Σ_ou
        white = np.linalg.solve(factors[None], difference[..., None])[..., 0]  # L⁻¹ (z_o - μ_o)
        log_weights = np.log(weights) - 0.5 * np.sum(white**2, axis=2)
        log_weights -= np.sum(np.log(np.einsum("kii->ki", factors)), axis=1)
        unnormalised = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        conditional_means = flat_means[None, :, ~given] + np.einsum("bko,kou->bku", white, cross)
        return Conditional(
            weights=unnormalised / unnormalised.sum(axis=1, keepdims=True),
            means=conditional_means.reshape(len(z), len(weights), -1, means.shape[2]),
            covariances=covariances[:, ~given][:, :, ~given] - np.swapaxes(cross, 1, 2) @ cross,
        )

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean [M, D] and covariance [M*D, M*D] of the whole mixture, in float64."""
        weights, means, covariances = self._float64()
        flat = means.reshape(len(weights), -1)
        mean = weights @ flat
        centred = flat - mean
        covariance = np.einsum("k,kij->ij", weights, covariances) + (weights * centred.T) @ centred
        return mean.reshape(means.shape[1:]), covariance

    def standardized(self) -> "GaussianMixture":
        """Return the mixture with each entry shifted to mean 0 and scaled to variance 1."""
        weights, means, covariances = self._float64()
        mean, covariance = self.moments()
        scale = np.sqrt(np.diagonal(covariance))
        return GaussianMixture(
            weights, (means - mean) / scale.reshape(mean.shape), covariances / scale[:, None] / scale[None]
        )

    def _float64(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights, means, covariances = (
            np.asarray(array, np.float64) for array in (self.weights, self.means, self.covariances)
        )
        return weights, means, covariances


def _gaussians(difference: Array, covariances: Array | np.ndarray) -> tuple[Array, Array]:
    """Return log N(x; μ_k, Σ_k) and its gradient for all rows and components.

    Args:
      difference: x - μ_k [B, K, n].
      covariances: Σ_k [B or 1, K, n, n].

    Returns:
      Log densities [B, K] and gradients -Σ_k⁻¹ (x - μ_k) [B, K, n].
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


# MARK: One time for all entries


class SpectralMixture(flax.struct.PyTreeNode):
    """A mixture in the eigenbases of its components, whose score at a shared time needs no factorisation.

    Some of the n entries may be left out, such as the observed entries of a conditional distribution. Their rows
    of the bases are 0; the zero columns that pad the bases have mean 0 and variance 1.

    Attributes:
      log_weights: log w [K].
      means: Uᵀ μ [K, n].
      bases: U [K, n, n], with the eigenvectors of the covariances as columns.
      variances: the eigenvalues [K, n].
    """

    log_weights: Array
    means: Array
    bases: Array
    variances: Array

    def sample(self, key: Key, num_samples: int) -> Array:
        """Return samples [N, n], 0 at entries left out."""
        component_key, noise_key = jax.random.split(key)
        components = jax.random.categorical(component_key, self.log_weights, shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, self.means.shape[1]))
        rotated = self.means[components] + jnp.sqrt(self.variances)[components] * noise
        chosen = jax.nn.one_hot(components, len(self.log_weights))
        return _einsum("nk,ni,kji->nj", chosen, rotated, self.bases)

    def score(self, sde: SDE, z: Array, t: Array) -> Array:
        """Return the exact score [B, n] of the mixture diffused to time t, 0 at entries left out.

        Args:
          sde: the process.
          z: diffused latents [B, n]; entries left out are ignored.
          t: scalar, the time of all entries.
        """
        alpha, sigma = sde.marginal(t)
        difference = self._rotated(z) - alpha * self.means[None]
        variances = alpha**2 * self.variances + sigma**2
        posterior = self._posterior(difference, variances)
        return -_einsum("bki,kji->bj", posterior[:, :, None] * difference / variances[None], self.bases)

    def responsibilities(self, z: Array) -> Array:
        """Return the posterior probabilities of the components [B, K], given clean latents [B, n]."""
        return self._posterior(self._rotated(z) - self.means[None], self.variances)

    def _rotated(self, z: Array) -> Array:
        return _einsum("bj,kji->bki", z, self.bases)

    def _posterior(self, difference: Array, variances: Array) -> Array:
        exponent = jnp.sum(difference**2 / variances[None], axis=2) + jnp.sum(jnp.log(variances), axis=1)[None]
        return jax.nn.softmax(self.log_weights[None] - 0.5 * exponent, axis=1)


def spectral(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, entries: np.ndarray) -> SpectralMixture:
    """Return one mixture, or several with shared covariances, in the eigenbases of the components.

    Args:
      weights: [..., K].
      means: [..., K, m], over m of the n entries.
      covariances: [K, m, m], in units where entries have a variance of about 1.
      entries: bool [n], True at the m entries.
    """
    size, kept = len(entries), means.shape[-1]
    eigenvalues, eigenvectors = np.linalg.eigh(covariances)
    bases, variances = np.zeros((len(covariances), size, size)), np.ones((len(covariances), size))
    bases[:, entries, :kept] = eigenvectors
    variances[:, :kept] = np.maximum(eigenvalues, _LEAST_VARIANCE)
    rotated = np.zeros((*means.shape[:-1], size))
    rotated[..., :kept] = np.einsum("...kj,kji->...ki", means, eigenvectors)
    log_weights = np.log(np.maximum(weights, np.finfo(np.float32).tiny))
    return SpectralMixture(*(jnp.asarray(array, jnp.float32) for array in (log_weights, rotated, bases, variances)))


# MARK: Making and reading mixtures


def random_mixture(
    seed: int = 0, separations: Sequence[float] = (0.35, 0.8, 0.8), num_components: int = 5, size: int = 8
) -> GaussianMixture:
    """Return a standardised mixture with correlated modalities and unequal weights, in float64.

    With the defaults, the first modality alone leaves the component ambiguous (its expected posterior probability is
    0.66), and the first two together identify it (0.98).

    Args:
      seed: seed of NumPy's generator.
      separations: M scales of the means, one per modality, before standardising.
      num_components: K.
      size: D.
    """
    rng = np.random.default_rng(seed)
    entries = len(separations) * size
    weights = rng.dirichlet(np.full(num_components, 8.0))
    means = np.repeat(separations, size) * rng.normal(size=(num_components, entries))
    factors = 0.3 * rng.normal(size=(num_components, entries, 4))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.25 * np.eye(entries)
    return GaussianMixture(weights, means.reshape(num_components, len(separations), size), covariances).standardized()


def read_mixture(path: Path) -> GaussianMixture:
    """Read a mixture from an ``.npz`` file with `weights` [K], `means` [K, M, D], `covariances` [K, M*D, M*D].

    Raises:
      SbmError: if the file cannot be read, or does not contain a mixture over two or more modalities.
    """
    names = ("weights", "means", "covariances")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise SbmError(f"{path}: {', '.join(missing)} not found; expected the arrays {', '.join(names)}.")
            weights, means, covariances = (np.asarray(file[name], np.float64) for name in names)
    except (OSError, AttributeError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"{path} cannot be read as an .npz file of numbers: {error}") from error
    _check(path, weights, means, covariances)
    kept = weights > 0
    covariances = (covariances + np.swapaxes(covariances, 1, 2)) / 2
    return GaussianMixture(weights[kept] / weights.sum(), means[kept], covariances[kept])


def _check(path: Path, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> None:
    """Raise `SbmError` unless the arrays are a mixture over two or more modalities."""
    if means.ndim != 3 or min(means.shape) < 1 or means.shape[1] < 2:
        raise SbmError(f"{path}: means must be [K, M, D] with two or more modalities, not {list(means.shape)}.")
    count, modalities, size = means.shape
    entries = modalities * size
    for name, array, shape in (("weights", weights, (count,)), ("covariances", covariances, (count, entries, entries))):
        if array.shape != shape:
            raise SbmError(f"{path}: for these means {name} must be {list(shape)}, not {list(array.shape)}.")
    for name, array in (("weights", weights), ("means", means), ("covariances", covariances)):
        if not np.all(np.isfinite(array)):
            raise SbmError(f"{path}: {name} must be finite.")
    if np.any(weights < 0) or abs(weights.sum() - 1) > 1e-3:
        raise SbmError(
            f"{path}: weights must be 0 or more and sum to 1; the smallest is {weights.min():.3g}, their sum is "
            f"{weights.sum():.6g}."
        )
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", covariances), np.finfo(np.float64).tiny))
    correlations = covariances / scale[:, :, None] / scale[:, None, :]
    for k, matrix in enumerate(correlations):
        if np.max(np.abs(matrix - matrix.T)) > 1e-4:
            raise SbmError(f"{path}: covariances[{k}] is not symmetric.")
        least = np.linalg.eigvalsh(matrix)[0]
        if not least > 0:
            raise SbmError(
                f"{path}: covariances[{k}] is not positive definite: as correlations, its smallest eigenvalue is "
                f"{least:.3g}. Add a little to its diagonal, or remove the component."
            )
