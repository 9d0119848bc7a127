"""A data set of another package, all of it in this file: points on a circle, and their angles."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.data.loader import Loader
from sbm_jax.types import Dataset, Split


@checked_dataclass
class CircleConfig:
    """Points on a circle.

    Attributes:
      num_rows: how many, in each split.
      radius: of the circle.
    """

    num_rows: int
    radius: float = 1.0


def load(config: CircleConfig, cache_dir, names) -> Dataset:
    """Return the points of three splits, with the modalities that are asked for."""

    def split(seed: int) -> Split:
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (config.num_rows, 1)).astype(np.float32)
        point = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * np.float32(config.radius)
        data = {"point": point, "angle": angle / np.float32(np.pi)}
        return Split({name: data[name] for name in data if names is None or name in names})

    return Dataset(split(0), split(1), split(2), {}, {"num_rows": config.num_rows, "radius": config.radius})


DATASET = Loader(CircleConfig, load)
