"""A method of a third party, in one file: what is missing is taken from the nearest rows of the training data.

config.systems = ("sbm_vae", "tests.extension.method:NEAREST")
config.methods.nearest = {"num_neighbours": 5}
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, require
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import Generated
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.observed import observed_rows, put_back
from sbm_jax.types import Array, Data, Dataset, Key, Modality, Params, Stage


@checked_dataclass
class NearestConfig:
    """Retrieval.

    Attributes:
      num_neighbours: K; a sample is one of the K nearest rows, at random.
    """

    num_neighbours: int = 1

    def __post_init__(self):
        require(self.num_neighbours >= 1, "methods.nearest.num_neighbours", self.num_neighbours, "1 or more")


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Training rows whose observed modalities are nearest to those given."""

    name: str
    modalities: tuple[Modality, ...]
    config: NearestConfig

    stage_names = ("nearest_rows",)

    def check(self, options: SamplerOptions) -> None:
        """Do nothing: it works with all options."""

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stage that keeps the training rows."""

        def init(key: Key, upstream: Mapping[str, Params]) -> Params:
            del key, upstream
            rows = dataset.train.rows([modality.name for modality in self.modalities])
            if "present" in rows:
                raise SbmError(f"system {self.name!r} needs rows that lack nothing.")
            return in_units(jax.tree.map(jnp.asarray, rows["data"]))

        settings = {"data": dataset.settings, "modalities": plain(self.modalities)}
        return [Stage(name="nearest_rows", settings=settings, init=init)]

    def generate(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: SamplerOptions,
        num_samples: int = 1,
        *,
        strength: Array | float | None = None,
    ) -> Generated:
        """Return one of the nearest rows for each sample; see `system.System.generate`."""
        del options
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength.")
        observed = observed_rows(data, observed, self.modalities)
        nearest = self._nearest(products, key, data, observed, self.config.num_neighbours)
        drawn = jax.random.randint(jax.random.fold_in(key, 1), (len(observed), num_samples), 0, nearest.shape[1])
        chosen = jnp.take_along_axis(nearest, drawn, axis=1).reshape(-1)
        samples = {name: rows[chosen] for name, rows in products["nearest_rows"].items()}
        info = {"network_evaluations": jnp.zeros(()), "diverged": jnp.zeros((), jnp.int32)}
        return Generated(put_back(samples, data, observed, self.modalities), None, info)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the rows that are nearest where everything is given."""
        everything = jnp.ones((len(next(iter(data.values()))), len(self.modalities)), bool)
        nearest = self._nearest(products, jax.random.key(0), data, everything, 1)[:, 0]
        return {name: rows[nearest] for name, rows in products["nearest_rows"].items()}

    def _nearest(self, products: Mapping[str, Params], key: Key, data: Data, observed: Array, neighbours: int) -> Array:
        """Return the numbers [B, K] of the rows nearest to what is observed, bool [B, M], any of those equally far."""
        rows = products["nearest_rows"]
        number = len(next(iter(rows.values())))
        distances = 1e-6 * jax.random.uniform(key, (len(observed), number))
        for modality, mask in zip(self.modalities, observed.T, strict=True):
            if modality.name in data:
                kept, given = (array.reshape(len(array), -1) for array in (rows[modality.name], data[modality.name]))
                gap = jnp.square(given[:, None] - kept[None]).sum(axis=-1)
                distances += jnp.where(mask[:, None], gap, 0.0)
        return jax.lax.top_k(-distances, min(neighbours, number))[1]


def _make(name: str, shared: Shared, nearest: NearestConfig) -> Nearest:
    return Nearest(name, shared.modalities, nearest)


NEAREST = Method("nearest", _make, {"nearest": NearestConfig})
