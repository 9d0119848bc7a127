"""Distances of what a system generates from real data, in the features of a network."""

from collections.abc import Mapping

import numpy as np

from sbm_jax.evaluation.estimates import Estimate, average
from sbm_jax.evaluation.features import FEWEST, SETS, FeatureConfig, FeatureSpace
from sbm_jax.evaluation.generation import Part, ReconstructFn, as_float
from sbm_jax.evaluation.observed_sets import FIXED_ORDER, GIVEN_REST, TO_TARGET, UNCONDITIONAL


class Distances:
    """Distances of samples from real data in the features of a network, taken while samples are in memory."""

    def __init__(
        self, space: FeatureSpace | None, config: FeatureConfig, data: Mapping[str, np.ndarray], rows: np.ndarray
    ):
        """Compare with the first `config.num_real` of the data in the order of `rows`, all rows of the split."""
        self.space, self.config = space, config
        chosen = rows[: config.num_real or None]
        self.real = {name: values[chosen] for name, values in data.items()}
        self.modalities = list(data)
        known = [name for name in data if space and name in space.extract]
        self.judged = [name for name in known if not config.modalities or name in config.modalities]
        self.features: dict[tuple[str, str], list[np.ndarray]] = {}

    def _targets(self, group: str) -> tuple[str, list[str]]:
        """Return how a group's set is called, and the modalities that are judged in it."""
        if group.startswith(GIVEN_REST):
            return "given_rest", [group.removeprefix(GIVEN_REST)]
        if group.startswith(FIXED_ORDER):
            return f"fixed_order/{group.rpartition('/')[2]}", [self.modalities[-1]]
        if group.startswith(TO_TARGET):
            _, _, size, target = group.split("/")
            return f"to_target/{size}", [target]
        return (group, self.modalities) if group == UNCONDITIONAL else ("", [])

    def look(self, part: Part) -> None:
        """Take the features of one part, of no more samples than are asked for."""
        label, targets = self._targets(part.group)
        if self.space is None or label.partition("/")[0] not in self.config.sets:
            return
        for name in targets:
            if name in self.judged:
                taken = self.features.setdefault((label, name), [])
                inside = part.inside[: self.config.num_examples - sum(map(len, taken))]
                if len(inside):
                    taken.append(self.space.extract[name](np.asarray(part.generated.data[name])[inside, 0]))

    def measured(self, reconstruct_fn: ReconstructFn | None) -> tuple[dict[str, Estimate], dict[str, str]]:
        """Return all distances, and their means over modalities."""
        if self.space is None:
            return {}, {}
        fid = f"{self.space.name}/{self.space.measures.get('frechet', 'frechet')}"
        if not self.config.num_examples:
            return {}, {fid: "not asked for: evaluation.features.num_examples is 0"}
        if "reconstruction" in self.config.sets and reconstruct_fn is not None:
            self._reconstruct(reconstruct_fn)
        metrics = {}
        not_available = {
            f"{fid}/{kind}": "no samples of it, or of a judged modality in it, were generated"
            if kind in self.config.sets
            else f"{kind!r} is not in evaluation.features.sets"
            for kind in SETS
            if not any(label.partition("/")[0] == kind for label, _ in self.features)
        }
        for (label, name), parts in self.features.items():
            features = np.concatenate(parts)
            features = features[np.isfinite(features).all(axis=1)]
            if len(features) < FEWEST:
                reason = f"{len(features)} finite samples are too few"
                not_available[f"{fid}/{label}/{name}"] = reason
                continue
            for measure, value in self.space.compare(name, features, self.real[name]).items():
                metrics[f"{measure}/{label}/{name}"] = value
        measured = [name for name in metrics if name.startswith(f"{fid}/")]
        if measured and not any(name.startswith(f"{fid}_infinity/") for name in metrics):
            not_available[f"{fid}_infinity"] = "wants more than two samples for each feature"
        return metrics | self._averages(metrics), not_available

    def of_real(self, data: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        """Return the distances of as many other real examples {modality: [N, *shape]}, by name with ``real``."""
        metrics = {}
        for name in self.judged:
            order = np.random.default_rng(0).permutation(len(data[name]))
            features = self.space.real(name, data[name][order[: self.config.num_examples]]).features
            for measure, value in self.space.compare(name, features, self.real[name]).items():
                metrics[f"{measure}/real/{name}"] = value
        return metrics | self._averages(metrics)

    def _reconstruct(self, reconstruct_fn: ReconstructFn) -> None:
        batch = 250
        number = min(self.config.num_examples, *map(len, self.real.values()))
        for start in range(0, number, batch):
            end = min(start + batch, number)
            images = {name: as_float(values[start:end]) for name, values in self.real.items()}
            decoded = reconstruct_fn(images)
            for name in self.judged:
                taken = self.features.setdefault(("reconstruction", name), [])
                taken.append(self.space.extract[name](np.asarray(decoded[name])))

    def _averages(self, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Return the means over the modalities that are judged."""
        groups: dict[str, list[str]] = {}
        for name in metrics:
            group, _, modality = name.rpartition("/")
            if modality in self.judged:
                groups.setdefault(group, []).append(name)
        return {group: average(metrics, names) for group, names in groups.items()}
