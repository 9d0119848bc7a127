"""Distances of generated from real data, in the features of a network."""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from sbm_jax import parallel
from sbm_jax.evaluation import fidelity, frechet
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.storage import DAMAGED_ARCHIVE, write_atomically

# [B, *shape] -> [B, D], or [B, P, D] of data with P parts, such as the frames of a video
FeatureFn = Callable[[np.ndarray], np.ndarray]

FEWEST = 40
"""The smallest number of examples of which every distance can be taken."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Real examples of one modality.

    Attributes:
      features: [N, D].
      gaussian: their moments, as the Fréchet distance needs them.
    """

    features: np.ndarray
    gaussian: frechet.Gaussian

    @functools.cached_property
    def radii(self) -> Callable[[int], np.ndarray]:
        """The function that returns the `fidelity.neighbour_distances` of the last n examples among themselves."""
        return functools.cache(lambda count: fidelity.neighbour_distances(self.features[-count:]))


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """A network's features, and the distances of data in them.

    Attributes:
      name: the first part of the names of its metrics.
      extract: the features of each modality that has some.
      fingerprint: of the network, so that cached features of real data are of this one.
      cache: the directory of the features of real data.
      measures: how its distances are called, where not by their own names.
      on_request: the modalities that are judged only where they are named.
    """

    name: str
    extract: Mapping[str, FeatureFn]
    fingerprint: str
    cache: Path
    measures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    on_request: Collection[str] = ()

    def judged(self, modalities: Sequence[str], asked: Collection[str]) -> list[str]:
        """Return the modalities that are compared: those that are asked for by name, or all but `on_request`."""
        missing = self.missing(modalities, asked)
        return [name for name in modalities if name in (asked or modalities) and name not in missing]

    def missing(self, modalities: Sequence[str], asked: Collection[str]) -> dict[str, str]:
        """Return why modalities that are asked for, all where none is named, are not compared."""
        reasons = {}
        for name in asked or modalities:
            if name not in self.extract:
                reasons[name] = f"{self.name} has no features of it"
            elif name in self.on_request and not asked:
                reasons[name] = "it has one channel: name it in evaluation.metrics.frechet.modalities to compare it"
        return reasons

    def measure(self, name: str) -> str:
        """Return the full name of a measure."""
        return f"{self.name}/{self.measures.get(name, name)}"

    def real(self, modality: str, images: np.ndarray) -> Reference:
        """Return what distances to these real examples [N, *shape] need; features are read from the cache."""
        return self._references(modality, _Hashed(images))

    @functools.cached_property
    def _references(self):
        return functools.cache(lambda modality, images: self._reference(modality, images.array, images.digest))

    def _reference(self, modality: str, images: np.ndarray, digest: str) -> Reference:
        features = flat(self._cached(modality, images, digest))
        return Reference(features, frechet.gaussian(frechet.moments(features)))

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
        """Return every distance of features [N, D] from those of real examples [N', *shape], by its name.

        Precision, recall, density and coverage depend on the counts, so they compare as many real examples as samples:
        the last ones, as samples are conditioned on the first.
        """
        reference = self.real(modality, real)
        count = min(len(features), len(reference.features))
        distances = frechet.measure(features, reference.gaussian)
        distances["kernel"] = fidelity.kernel_distance(reference.features, features)
        nearest = reference.features[-count:], features[:count], reference.radii(count)
        distances |= fidelity.precision_recall(*nearest)
        return {self.measure(name): value for name, value in distances.items()}


def flat(features: np.ndarray) -> np.ndarray:
    """Return the features of all parts of all rows, [N, D], of [B, D] or [B, P, D]."""
    return features.reshape(-1, features.shape[-1])


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
