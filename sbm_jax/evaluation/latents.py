"""How near generated latents are to encoded ones."""

import numpy as np

from sbm_jax.evaluation.estimates import Estimate, estimate
from sbm_jax.evaluation.generation import EncodeFn, Part
from sbm_jax.evaluation.observed_sets import GIVEN_REST

METRIC = "latents/cosine/given_rest"


class Cosines:
    """How near generated latents are to those of the true data, all other modalities given (Table 7)."""

    def __init__(self, encode_fn: EncodeFn | None):
        """Compare with the latents that `encode_fn` returns."""
        self.encode_fn = encode_fn
        self.values: dict[str, dict[int, list[np.ndarray]]] = {}  # {modality: {repeat: cosines of each call}}

    @property
    def families(self) -> set[str]:
        """The families of observed sets that are looked at."""
        return set() if self.encode_fn is None else {GIVEN_REST}

    def look(self, repeat: int, part: Part) -> None:
        """Take the cosines of one part."""
        if part.group.family not in self.families or part.generated.latents is None:
            return
        target = part.group.target
        true = np.asarray(self.encode_fn(part.given)[target])[part.inside]
        found = np.asarray(part.generated.latents[target])[part.inside, 0]
        self.values.setdefault(target, {}).setdefault(repeat, []).append(_cosines(true, found))

    def measured(self) -> tuple[dict[str, Estimate], dict[str, str]]:
        """Return the mean cosine of each modality, and over all, without samples that are not finite."""
        if self.encode_fn is None:
            return {}, {METRIC: "the system has no latents of each modality"}
        finite = {
            name: {repeat: values[np.isfinite(values)] for repeat, values in _joined(repeats).items()}
            for name, repeats in self.values.items()
        }
        finite = {name: repeats for name, repeats in finite.items() if any(map(len, repeats.values()))}
        if not finite:
            return {}, {METRIC: "no latents were generated given all the others, or none has a direction"}
        metrics = {f"{METRIC}/{name}": estimate(list(repeats.values())) for name, repeats in finite.items()}
        # One group for each repeat, of all modalities: they share rows, so their errors are not independent.
        numbers = sorted({repeat for repeats in finite.values() for repeat in repeats})
        every = [np.concatenate([repeats[number] for repeats in finite.values()]) for number in numbers]
        return metrics | {METRIC: estimate(every)}, {}


def _joined(repeats: dict[int, list[np.ndarray]]) -> dict[int, np.ndarray]:
    return {repeat: np.concatenate(parts) for repeat, parts in repeats.items()}


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows [N, D]: [N], nan where one is 0 or not finite."""
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.divide(np.sum(x * y, axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0)
