"""Distances of what a system generates from real data, in the features of a network."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.estimates import Estimate, average
from sbm_jax.evaluation.features import FEWEST, RECONSTRUCTION, SETS, FeatureConfig, FeatureSpace
from sbm_jax.evaluation.generation import Part, ReconstructFn, as_float
from sbm_jax.evaluation.observed_sets import FIXED_ORDER, Group

Found = dict[tuple[str, str], dict[str, Estimate]]  # {(set of samples, modality): {measure: distance}}


class Distances:
    """Distances of samples from real data in the features of a network, taken while samples are in memory.

    Samples that are not finite are left out.
    """

    def __init__(
        self, space: FeatureSpace | None, config: FeatureConfig, data: Mapping[str, np.ndarray], rows: np.ndarray
    ):
        """Compare with the first `config.num_real` of the data in the order of `rows`, all rows of the split."""
        self.space, self.config = space, config
        chosen = rows[: config.num_real or None]
        self.real = {name: values[chosen] for name, values in data.items()}
        self.modalities = list(data)
        self.judged = space.judged(self.modalities, config.modalities) if space else []
        self.features: dict[tuple[Group, str], list[np.ndarray]] = {}

    @property
    def families(self) -> set[str]:
        """The families of observed sets whose samples are compared."""
        return set(self.config.sets) if self.judged and self.config.num_examples else set()

    def look(self, part: Part) -> None:
        """Take the features of one part, of no more samples than are asked for."""
        if part.group.family not in self.families:
            return
        for name in self._judged_in(part.group):
            taken = self.features.setdefault((dataclasses.replace(part.group, target=""), name), [])
            inside = part.inside[: self.config.num_examples - sum(map(len, taken))]
            if len(inside):
                taken.append(self._extract(name, np.asarray(part.generated.data[name])[inside, 0]))

    def _judged_in(self, group: Group) -> list[str]:
        """Return the modalities that are judged in a group: of the fixed order the last one."""
        target = self.modalities[-1] if group.family == FIXED_ORDER else group.target
        return [name for name in self.judged if target in ("", name)]

    def _extract(self, name: str, samples: np.ndarray) -> np.ndarray:
        """Return features [N, D] of samples [N, *shape], nan where a sample is not finite."""
        finite = np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
        return np.where(finite[:, None], self.space.extract[name](samples), np.nan)

    def measured(self, reconstruct_fn: ReconstructFn | None) -> tuple[dict[str, Estimate], dict[str, str]]:
        """Return all distances, and their means over modalities."""
        if self.space is None:
            return {}, {}
        fid = self.space.measure("frechet")
        if not self.config.num_examples:
            return {}, {fid: "not asked for: evaluation.features.num_examples is 0"}
        if RECONSTRUCTION in self.families and reconstruct_fn is not None:
            self._reconstruct(reconstruct_fn)
        not_available = self._missing()
        found: Found = {}
        for (group, name), parts in self.features.items():
            features = np.concatenate(parts)
            features = features[np.isfinite(features).all(axis=1)]
            if len(features) < FEWEST:
                not_available[f"{fid}/{_label(group)}/{name}"] = f"{len(features)} finite samples are too few"
                continue
            found[_label(group), name] = self.space.compare(name, features, self.real[name])
        infinity = self.space.measure("frechet_infinity")
        if found and not any(infinity in measures for measures in found.values()):
            not_available[infinity] = "wants more than two samples for each feature"
        return _metrics(found), not_available

    def _missing(self) -> dict[str, str]:
        """Return the sets of samples, and the modalities, of which nothing is compared, and why."""
        fid = self.space.measure("frechet")
        if not self.judged:
            return {fid: f"no modality that is asked for has features in {self.space.name}"}
        there = {group.family for group, _ in self.features}
        missing = self.space.missing(self.modalities, self.config.modalities)
        return {f"{fid}/{name}": reason for name, reason in missing.items()} | {
            f"{fid}/{family}": "no samples of it, or of a judged modality in it, were generated"
            if family in self.config.sets
            else f"{family!r} is not in evaluation.features.sets"
            for family in SETS
            if family not in there
        }

    def of_real(self, data: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        """Return the distances of as many other real examples {modality: [N, *shape]}, by name with ``real``."""
        found: Found = {}
        for name in self.judged:
            order = np.random.default_rng(0).permutation(len(data[name]))[: self.config.num_examples]
            if len(order) >= FEWEST:
                features = self.space.real(name, data[name][order]).features
                found["real", name] = self.space.compare(name, features, self.real[name])
        return _metrics(found)

    def _reconstruct(self, reconstruct_fn: ReconstructFn) -> None:
        batch = 250
        number = min(self.config.num_examples, *map(len, self.real.values()))
        for start in range(0, number, batch):
            end = min(start + batch, number)
            images = {name: as_float(values[start:end]) for name, values in self.real.items()}
            decoded = reconstruct_fn(images)
            for name in self.judged:
                taken = self.features.setdefault((Group(RECONSTRUCTION), name), [])
                taken.append(self._extract(name, np.asarray(decoded[name])))


def _label(group: Group) -> str:
    """Return what the samples of a group are called in the names of metrics."""
    return group.family if group.size is None else f"{group.family}/given_{group.size}"


def _metrics(found: Found) -> dict[str, Estimate]:
    """Return all distances, and their means over the modalities that are judged, by their full names."""
    metrics: dict[str, Estimate] = {}
    members: dict[str, list[str]] = {}
    for (label, modality), measures in found.items():
        for measure, value in measures.items():
            metrics[f"{measure}/{label}/{modality}"] = value
            members.setdefault(f"{measure}/{label}", []).append(f"{measure}/{label}/{modality}")
    return metrics | {name: average(metrics, names) for name, names in members.items()}
