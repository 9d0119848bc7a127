"""Distances between generated and real data, in the feature space of a network."""

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

# [B, *shape] -> [B, D], or [B, P, D] for data with P parts, such as the frames of a video
FeatureFn = Callable[[np.ndarray], np.ndarray]

FEWEST = 40
"""The smallest number of examples for which every distance is defined."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Real examples of one modality.

    Attributes:
      features: their features, [N, D].
      gaussian: moments of the features, for the Fréchet distance.
    """

    features: np.ndarray
    gaussian: frechet.Gaussian

    @functools.cached_property
    def radii(self) -> Callable[[int], np.ndarray]:
        """The function from n to the `fidelity.neighbour_distances` among the last n examples."""
        return functools.cache(lambda count: fidelity.neighbour_distances(self.features[-count:]))


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """A network's feature space, and the distances of data in it.

    Attributes:
      name: first part of the names of its metrics.
      extract: {modality: feature extractor}, for modalities that have one.
      fingerprint: fingerprint of the network, which identifies cached features.
      cache: directory of cached features of real data.
      measures: {measure: its name in results}, for measures that are renamed.
      on_request: modalities that are evaluated only if named explicitly.
    """

    name: str
    extract: Mapping[str, FeatureFn]
    fingerprint: str
    cache: Path
    measures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    on_request: Collection[str] = ()

    def judged(self, modalities: Sequence[str], asked: Collection[str]) -> list[str]:
        """Return the modalities to compare: those named in `asked`, or all but `on_request` if none is named."""
        missing = self.missing(modalities, asked)
        return [name for name in modalities if name in (asked or modalities) and name not in missing]

    def missing(self, modalities: Sequence[str], asked: Collection[str]) -> dict[str, str]:
        """Return {modality: why it is not compared}, for modalities in `asked`, or all if none is named."""
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
        """Return the reference of real examples [N, *shape], with features from the cache if they are there."""
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
                return None  # damaged: recompute

        def write(features: np.ndarray) -> None:
            buffer = io.BytesIO()
            np.savez(buffer, features=features)  # archives have checksums
            write_atomically(path, buffer.getvalue())

        return parallel.kept(read, lambda: self.extract[modality](images), write, path.name)

    def compare(self, modality: str, features: np.ndarray, real: np.ndarray) -> dict[str, Estimate]:
        """Return {name: distance} between features [N, D] of samples and real examples [N', *shape].

        Precision, recall, density and coverage depend on the counts, so they use as many real examples as samples: the
        last ones, because samples are conditioned on the first.
        """
        reference = self.real(modality, real)
        count = min(len(features), len(reference.features))
        distances = frechet.measure(features, reference.gaussian)
        distances["kernel"] = fidelity.kernel_distance(reference.features, features)
        nearest = reference.features[-count:], features[:count], reference.radii(count)
        distances |= fidelity.precision_recall(*nearest)
        return {self.measure(name): value for name, value in distances.items()}


def flat(features: np.ndarray) -> np.ndarray:
    """Flatten features [B, D] or [B, P, D] to those of all parts of all rows, [N, D]."""
    return features.reshape(-1, features.shape[-1])


class _Hashed:
    """A hashable array."""

    def __init__(self, array: np.ndarray):
        self.array = array
        description = f"{array.shape} {array.dtype}".encode()
        self.digest = hashlib.sha256(description + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.digest == other.digest


def in_batches(extract: FeatureFn, batch_size: int) -> FeatureFn:
    """Return a function that calls `extract` with batches of one size, the last padded with zeros."""

    def features(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
            parts.append(np.asarray(extract(np.concatenate([batch, padding])))[: len(batch)])
        return np.concatenate(parts)

    return features
