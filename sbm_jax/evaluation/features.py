"""Distances of generated from real data, in the features of a network."""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbm_jax import parallel
from sbm_jax.errors import require, unknown
from sbm_jax.evaluation import fidelity, frechet
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.storage import DAMAGED_ARCHIVE, write_atomically

FeatureFn = Callable[[np.ndarray], np.ndarray]  # [B, *shape] -> [B, D]

SETS = ("given_rest", "unconditional", "fixed_order", "to_target", "reconstruction")
"""What can be compared with real data: of ``fixed_order`` the last modality only, of ``to_target`` the targets."""

FEWEST = 40
"""The smallest number of examples of which every distance can be taken."""


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """What is compared with real data.

    Attributes:
      num_examples: samples per distance; 0 for no distances.
      num_real: real examples that they are compared with; 0 for all that are held out.
      sets: families of observed sets, of `SETS`.
      modalities: those to judge; all where there is none.
      weights: a file with the weights of the FID Inception-v3 (see `networks.inception`); "" looks for the installed
        package that carries them.
    """

    num_examples: int = 1000
    num_real: int = 0
    sets: tuple[str, ...] = ("given_rest", "unconditional")
    modalities: tuple[str, ...] = ()
    weights: str = ""

    def __post_init__(self):
        where = "evaluation.features.num_examples"
        require(self.num_examples == 0 or self.num_examples >= FEWEST, where, self.num_examples, f"0, or {FEWEST} up")
        where = "evaluation.features.num_real"
        require(self.num_real == 0 or self.num_real >= FEWEST, where, self.num_real, f"0 (all), or {FEWEST} up")
        for name in self.sets:
            if name not in SETS:
                raise unknown("set of samples in evaluation.features.sets:", name, SETS)


class Reference(NamedTuple):
    """Real examples of one modality.

    Attributes:
      features: [N, D].
      gaussian: their moments, as the Fréchet distance needs them.
      radii: squared distances to the k-th neighbour [N].
    """

    features: np.ndarray
    gaussian: frechet.Gaussian
    radii: np.ndarray


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """A network's features, and the distances of data in them.

    Attributes:
      name: the first part of the names of its metrics.
      extract: the features of each modality that has some.
      fingerprint: of the network, so that cached features of real data are of this one.
      cache: the directory of the features of real data.
      measures: how its distances are called, where not by their own names.
    """

    name: str
    extract: Mapping[str, FeatureFn]
    fingerprint: str
    cache: Path
    measures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def real(self, modality: str, images: np.ndarray) -> Reference:
        """Return what distances to these real examples [N, *shape] need; features are read from the cache."""
        return self._references(modality, _Hashed(images))

    @functools.cached_property
    def _references(self):
        return functools.cache(lambda modality, images: self._reference(modality, images.array, images.digest))

    def _reference(self, modality: str, images: np.ndarray, digest: str) -> Reference:
        features = self._cached(modality, images, digest)
        return Reference(features, frechet.gaussian(frechet.moments(features)), fidelity.neighbour_distances(features))

    def _cached(self, modality: str, images: np.ndarray, digest: str) -> np.ndarray:
        path = self.cache / f"{self.name}_{self.fingerprint}_{digest}.npz"

        def read() -> np.ndarray | None:
            try:
                if not path.is_file():
                    return None
                with np.load(path, allow_pickle=False) as arrays:
                    return arrays["features"]
            except DAMAGED_ARCHIVE:
                return None  # damaged: made again

        def write(features: np.ndarray) -> None:
            buffer = io.BytesIO()
            np.savez(buffer, features=features)  # an archive has checksums
            write_atomically(path, buffer.getvalue())

        return parallel.kept(read, lambda: self.extract[modality](images), write, path.name)

    def compare(self, modality: str, features: np.ndarray, real: np.ndarray) -> dict[str, Estimate]:
        """Return every distance of features [N, D] from those of real examples [N', *shape], by its name."""
        reference = self.real(modality, real)
        distances = frechet.measure(features, reference.gaussian)
        distances["kernel"] = fidelity.kernel_distance(reference.features, features)
        distances |= fidelity.precision_recall(reference.features, features, reference.radii)
        return {f"{self.name}/{self.measures.get(name, name)}": value for name, value in distances.items()}


class _Hashed:
    """An array that can be a key."""

    def __init__(self, array: np.ndarray):
        self.array = array
        description = f"{array.shape} {array.dtype}".encode()
        self.digest = hashlib.sha256(description + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.digest == other.digest


def in_batches(extract: FeatureFn, batch_size: int) -> FeatureFn:
    """Return the function that calls `extract` with batches of one size, the last one padded with zeros."""

    def features(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
            parts.append(np.asarray(extract(np.concatenate([batch, padding])))[: len(batch)])
        return np.concatenate(parts)

    return features
