"""Cosine similarity of generated and encoded latents."""

import collections

import numpy as np

from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.estimates import estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, NoOptions, Scene
from sbm_jax.evaluation.observed_sets import GIVEN_REST

METRIC = "latents/cosine/given_rest"


class Cosine(Metric):
    """The cosine between generated latents and those of the true data, given all other modalities (Table 7)."""

    def __init__(self, options: NoOptions, scene: Scene):
        """Request each modality given the rest, for systems that encode."""
        super().__init__(options, scene)
        self.asks = () if scene.subject.encode is None else observed_sets.asks(GIVEN_REST, scene.modalities)
        self.values: dict[str, dict[int, list[np.ndarray]]] = {
            name: collections.defaultdict(list) for name in scene.modalities
        }  # {modality: {repeat: cosines of each draw}}

    def look(self, draw: Draw) -> None:
        """Collect the cosines of the target."""
        target = draw.ask.target
        found = draw.latents(target)
        if found is not None:
            there = self.scene.examples.having([target])[draw.rows]
            self.values[target][draw.repeat].append(_cosines(draw.encoded(target)[there], found[there]))

    def result(self) -> Evaluation:
        """Return the mean cosine for each modality and over all, leaving out samples that are not finite."""
        if self.scene.subject.encode is None:
            return Evaluation({}, {METRIC: "the system has no latents of each modality"}, {})
        finite = {
            name: {repeat: values[np.isfinite(values)] for repeat, values in _joined(repeats).items()}
            for name, repeats in self.values.items()
        }
        finite = {name: repeats for name, repeats in finite.items() if any(map(len, repeats.values()))}
        if not finite:
            missing = {METRIC: "no latents were generated given all the others, or none has a direction"}
            return Evaluation({}, missing, {})
        metrics = {f"{METRIC}/{name}": estimate(list(repeats.values())) for name, repeats in finite.items()}
        # One group per repeat for all modalities: they share rows, so their errors are not independent.
        numbers = sorted({repeat for repeats in finite.values() for repeat in repeats})
        every = [np.concatenate([repeats[number] for repeats in finite.values()]) for number in numbers]
        return Evaluation(metrics | {METRIC: estimate(every)}, {}, {})


def _joined(repeats: dict[int, list[np.ndarray]]) -> dict[int, np.ndarray]:
    return {repeat: np.concatenate(parts) for repeat, parts in repeats.items()}


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows [N, D], [N], NaN where a row is 0 or not finite."""
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.divide(np.sum(x * y, axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0)
