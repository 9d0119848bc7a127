import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.mixtures import GaussianMixture, random_mixture, read_mixture, spectral
from sbm_jax.sde import VP
from sbm_jax.types import Context


@pytest.fixture(scope="module")
def mixture():
    return exact_laws.make_mixture(components=3, modalities=3, size=2)


def _log_density(mixture, sde, z, t):
    """The diffused log density of one row, in NumPy and float64."""
    alpha, sigma = (np.repeat(np.asarray(value, np.float64), 2) for value in sde.marginal(jnp.asarray(t)))
    total = []
    for weight, mean, covariance in zip(
        *(np.asarray(x, np.float64) for x in (mixture.weights, mixture.means, mixture.covariances)),
        strict=True,
    ):
        diffused = np.diag(alpha) @ covariance @ np.diag(alpha) + np.diag(sigma**2)
        difference = z.reshape(-1) - alpha * mean.reshape(-1)
        quadratic = difference @ np.linalg.solve(diffused, difference)
        total.append(np.log(weight) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * diffused)[1]))
    return np.logaddexp.reduce(total)


def test_score_is_the_gradient_of_the_diffused_log_density_with_a_time_per_modality(mixture):
    sde, rng = VP(), np.random.default_rng(1)
    z = rng.normal(size=(2, 3, 2))
    t = np.array([[0.0, 0.3, 0.3], [0.7, 0.2, 0.01]])
    score = np.asarray(mixture.score(sde, jnp.asarray(z, jnp.float32), jnp.asarray(t, jnp.float32)))
    for row in range(2):
        for entry in np.ndindex(3, 2):
            shift = np.zeros((3, 2))
            shift[entry] = 1e-5
            rise = _log_density(mixture, sde, z[row] + shift, t[row]) - _log_density(
                mixture, sde, z[row] - shift, t[row]
            )
            np.testing.assert_allclose(score[row][entry], rise / 2e-5, rtol=2e-3, atol=2e-3)


def test_shared_times_and_masks(mixture):
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    observed = jnp.broadcast_to(jnp.array([[True, False, False]]), (4, 3))
    context = Context(observed, jnp.ones((3, 2), bool))
    t = jnp.where(observed, 0.0, 0.4)
    per_row = mixture.score_fn(VP(), context)(jax.random.key(1), z, t)
    shared = mixture.score_fn(VP(), context, shared_times=True)(jax.random.key(1), z, t)
    np.testing.assert_allclose(per_row, shared, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(per_row[:, 0], 0.0)
    np.testing.assert_allclose(per_row[:, 1:], mixture.score(VP(), z, t)[:, 1:])


def test_conditional_is_the_ratio_of_densities(mixture):
    observed = np.array([False, True, False])
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    law = mixture.condition(jnp.where(observed[None, :, None], z, jnp.nan), observed)
    # log p(z_u | z_o) and log p(z_u, z_o) differ by a constant in z_u.
    constants = []
    for free in np.random.default_rng(0).normal(size=(3, 2, 2)):
        point = np.array(z[0])
        point[[0, 2]] = free
        terms = []
        for weight, mean, covariance in zip(law.weights[0], law.means[0], law.covariances, strict=True):
            difference = (free - np.asarray(mean)).reshape(-1)
            quadratic = difference @ np.linalg.solve(covariance, difference)
            terms.append(np.log(weight) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * np.asarray(covariance))[1]))
        constants.append(np.logaddexp.reduce(terms) - _log_density(mixture, VP(), point, np.zeros(3)))
    np.testing.assert_allclose(constants, constants[0], atol=1e-3)
    np.testing.assert_allclose(np.sum(law.weights, axis=1), 1.0, rtol=1e-5)


def test_samples_have_the_moments_of_the_mixture(mixture):
    samples, components = exact_laws.draw_exactly(mixture, jax.random.key(0), 20_000)
    np.testing.assert_allclose(np.bincount(components) / 20_000, mixture.weights, atol=0.02)
    np.testing.assert_allclose(np.mean(samples, axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(np.var(samples, axis=0), 1.0, atol=0.04)


def test_conditioning_on_everything_is_refused(mixture):
    with pytest.raises(SbmError, match="Leave one out"):
        mixture.condition(jnp.zeros((1, 3, 2)), np.ones(3, bool))


# MARK: One time for all entries


def test_a_spectral_mixture_has_the_same_score(mixture):
    z = jax.random.normal(jax.random.key(0), (4, 3, 2))
    entries = np.ones(6, bool)
    weights, means, covariances = mixture.weights, mixture.means.reshape(3, 6), mixture.covariances
    law = spectral(*(np.asarray(array, np.float64) for array in (weights, means, covariances)), entries)
    expected = mixture.score(VP(), z, jnp.full((1, 3), 0.3)).reshape(4, 6)
    np.testing.assert_allclose(law.score(VP(), z.reshape(4, 6), jnp.float32(0.3)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(law.responsibilities(z.reshape(4, 6)), mixture.responsibilities(z), atol=1e-5)


def test_the_conditional_law_has_the_score_of_unobserved_entries_at_times_of_their_own(mixture):
    """With observed modalities clean, ∇ log p(z_o, z_u,t) = ∇ log p_t(z_u | z_o): the bench rests on it."""
    observed, t = np.array([False, True, False]), 0.3
    z = jax.random.normal(jax.random.key(0), (1, 3, 2))
    law = mixture.condition(z, observed)
    entries = np.repeat(~observed, 2)
    conditional = spectral(law.weights[0], law.means.reshape(3, 4), law.covariances, entries)
    expected = mixture.score(VP(), z, jnp.where(observed, 0.0, t)[None]).reshape(1, 6)
    expected = jnp.where(entries[None], expected, 0.0)
    np.testing.assert_allclose(conditional.score(VP(), z.reshape(1, 6), jnp.float32(t)), expected, atol=2e-4)
    np.testing.assert_allclose(conditional.responsibilities(z.reshape(1, 6)), mixture.responsibilities(z), atol=1e-5)


def test_spectral_samples_have_the_moments_of_the_law(mixture):
    entries = np.array([True, True, False, False, True, True])
    law = mixture.condition(jnp.ones((1, 3, 2)), np.array([False, True, False]))
    means = law.means.reshape(3, 4)
    samples = np.asarray(spectral(law.weights[0], means, law.covariances, entries).sample(jax.random.key(0), 20_000))
    np.testing.assert_array_equal(samples[:, ~entries], 0.0)
    np.testing.assert_allclose(samples[:, entries].mean(axis=0), law.weights[0] @ means, atol=0.03)
    second = np.einsum("k,kij->ij", law.weights[0], law.covariances + means[:, :, None] * means[:, None])
    np.testing.assert_allclose(samples[:, entries].T @ samples[:, entries] / 20_000, second, atol=0.05)


# MARK: Where mixtures come from


def test_standardising_is_the_affine_map_of_the_samples(mixture):
    scale, shift = np.array([100.0, 1.0, 0.01, 2.0, 1.0, 3.0]), np.arange(6.0)
    moved = GaussianMixture(
        mixture.weights,
        np.asarray(mixture.means) * scale.reshape(3, 2) + shift.reshape(3, 2),
        np.asarray(mixture.covariances) * scale[:, None] * scale[None],
    )
    mean, covariance = moved.standardized().moments()
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(covariance), 1.0)
    # `mixture` is standardised already.
    np.testing.assert_allclose(moved.standardized().means, mixture.means, atol=1e-5)
    np.testing.assert_allclose(moved.standardized().covariances, mixture.covariances, atol=1e-5)


def test_our_own_mixture_is_settled_by_two_modalities_and_not_by_one():
    mixture = random_mixture()
    rng = np.random.default_rng(0)
    components = rng.choice(5, 2000, p=mixture.weights)
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(mixture.covariances)[components], rng.normal(size=(2000, 24)))
    z = mixture.means[components] + noise.reshape(2000, 3, 8)
    certainty = [np.mean(np.sum(mixture.condition(z, np.arange(3) < n).weights ** 2, axis=1)) for n in (1, 2)]
    np.testing.assert_allclose(certainty, [0.66, 0.98], atol=0.015)


def _arrays(**changed):
    arrays = {
        "weights": np.array([0.3, 0.7]),
        "means": np.zeros((2, 2, 1)),
        "covariances": np.tile(np.eye(2), (2, 1, 1)),
    }
    return arrays | changed


def test_a_mixture_is_read_from_a_file(tmp_path):
    np.savez(tmp_path / "m.npz", **_arrays(weights=np.array([0.0, 1.0]), means=np.arange(4.0).reshape(2, 2, 1)))
    mixture = read_mixture(tmp_path / "m.npz")
    np.testing.assert_array_equal(mixture.means, [[[2.0], [3.0]]])  # a component of weight 0 is left out
    np.testing.assert_array_equal(mixture.weights, [1.0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": np.array([0.5, 0.6])}, r"weights must be 0 or more and sum to 1"),
        ({"weights": np.array([1.5, -0.5])}, r"weights must be 0 or more and sum to 1"),
        ({"weights": np.ones(3) / 3}, r"weights must be \[2\], not \[3\]"),
        ({"means": np.zeros((2, 2))}, r"means must be \[K, M, D\]"),
        ({"means": np.zeros((2, 1, 2))}, r"two or more modalities"),
        ({"means": np.full((2, 2, 1), np.nan)}, r"means must be finite"),
        ({"covariances": np.zeros((2, 3, 3))}, r"covariances must be \[2, 2, 2\]"),
        ({"covariances": np.tile(np.ones((2, 2)), (2, 1, 1))}, r"covariances\[0\] is not positive definite"),
        ({"covariances": np.tile(-np.eye(2), (2, 1, 1))}, r"covariances\[0\] is not positive definite"),
        ({"covariances": np.tile(np.array([[1, 0.5], [0, 1]]), (2, 1, 1))}, r"covariances\[0\] is not symmetric"),
        ({"means": np.array([["a"]])}, r"cannot be read as an .npz file of numbers"),
        ({"means": np.array([{}], object)}, r"cannot be read as an .npz file of numbers"),
    ],
)
def test_what_is_not_a_mixture_is_named(tmp_path, changed, message):
    np.savez(tmp_path / "m.npz", **_arrays(**changed))
    with pytest.raises(SbmError, match=message):
        read_mixture(tmp_path / "m.npz")


def test_files_that_can_not_be_read_are_named(tmp_path):
    np.savez(tmp_path / "some.npz", weights=np.ones(1))
    with pytest.raises(SbmError, match="means, covariances not found"):
        read_mixture(tmp_path / "some.npz")
    (tmp_path / "text.npz").write_text("weights")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("text.npz", "one.npy", "missing.npz"):
        with pytest.raises(SbmError, match="cannot be read"):
            read_mixture(tmp_path / name)
