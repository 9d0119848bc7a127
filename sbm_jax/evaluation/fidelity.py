"""Fidelity and coverage of samples: kernel distance, precision, recall, density and coverage.

All take features [N, D], float32.
"""

import numpy as np

from sbm_jax.evaluation.estimates import SUBSETS, Estimate

NUM_NEIGHBOURS = 5


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Estimate:
    """Return the kernel inception distance: the unbiased squared MMD under the kernel (x·y / D + 1)³.

    Args:
      real: features [N, D].
      generated: features [N', D].
      num_subsets: number of subsets over which mean and standard deviation are taken; subsets overlap, so the latter
        is not a standard error.
      subset_size: real and generated rows per subset; at most half of the rows.
      seed: seed of the subsets.

    Reference: M. Bińkowski et al., "Demystifying MMD GANs", 2018. https://arxiv.org/abs/1801.01401
    """
    size = min(subset_size, len(real) // 2, len(generated) // 2)
    draws = np.random.default_rng(seed)
    distances = []
    for _ in range(num_subsets):
        x = real[draws.choice(len(real), size, replace=False)]
        y = generated[draws.choice(len(generated), size, replace=False)]
        distances.append(squared_mmd(x, y))
    return Estimate(float(np.mean(distances)), float(np.std(distances)), len(generated), SUBSETS)


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared MMD between features [N, D] and [N, D] under the kernel (x·y / D + 1)³."""
    count = len(x)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values = (a @ b.T).astype(np.float64) / a.shape[1] + 1.0
        return values * values * values  # ten times as fast as a power

    def within(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (count * (count - 1))

    return float(within(x) + within(y) - 2.0 * kernel(x, y).mean())


def neighbour_distances(features: np.ndarray, neighbours: int = NUM_NEIGHBOURS) -> np.ndarray:
    """Return the squared distance [N] of each row to its k-th nearest neighbour."""
    distances = squared_distances(features, features)
    np.fill_diagonal(distances, np.inf)  # a row is not its own neighbour
    return np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ‖x_i - y_j‖², [N, N'], of features [N, D] and [N', D]."""
    # Distances are small compared with norms: centring keeps float32 accurate enough.
    centre = x.mean(axis=0)
    x, y = x - centre, y - centre
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None] - 2.0 * (x @ y.T)
    return squares.clip(min=0.0)


def precision_recall(
    real: np.ndarray, generated: np.ndarray, real_radii: np.ndarray, neighbours: int = NUM_NEIGHBOURS
) -> dict[str, Estimate]:
    """Return precision, recall, density and coverage.

    Around each real (generated) example is a ball that reaches to its k-th nearest real (generated) neighbour.
    Precision is the share of samples in at least one real ball, recall the share of real examples in at least one
    generated ball, density the mean number of real balls that contain a sample, divided by k, and coverage the share of
    real balls that contain a sample.

    Args:
      real: features [N, D].
      generated: features [N', D].
      real_radii: `neighbour_distances` of `real`, [N].
      neighbours: k.

    Reference: T. Kynkäänniemi et al., 2019, https://arxiv.org/abs/1904.06991 (precision and recall); M. F. Naeem et
    al., 2020, https://arxiv.org/abs/2002.09797 (density and coverage).
    """
    between = squared_distances(real, generated)
    in_real = between <= real_radii[:, None]
    in_generated = between <= neighbour_distances(generated, neighbours)[None]
    count = len(generated)

    def share(values: np.ndarray) -> Estimate:
        return Estimate(float(np.mean(values)), None, count)

    return {
        "precision": share(in_real.any(axis=0)),
        "recall": share(in_generated.any(axis=1)),
        "density": share(in_real.sum(axis=0) / neighbours),
        "coverage": share(in_real.any(axis=1)),
    }
