"""How near generated latents are to encoded ones."""

import numpy as np

from sbm_jax.evaluation.estimates import Estimate, estimate
from sbm_jax.evaluation.generation import EncodeFn, Part
from sbm_jax.evaluation.observed_sets import GIVEN_REST


class Cosines:
    """How near generated latents are to those of the true data, all other modalities given (Table 7)."""

    def __init__(self, encode_fn: EncodeFn | None):
        """Compare with the latents that `encode_fn` returns."""
        self.encode_fn = encode_fn
        self.values: dict[str, list[np.ndarray]] = {}  # of each compiled call

    def look(self, part: Part) -> None:
        """Take the cosines of one part."""
        target = part.group.removeprefix(GIVEN_REST)
        if self.encode_fn is None or part.generated.latents is None or target == part.group:
            return
        true = np.asarray(self.encode_fn(part.given)[target])[part.inside]
        found = np.asarray(part.generated.latents[target])[part.inside, 0]
        norms = np.linalg.norm(true, axis=1) * np.linalg.norm(found, axis=1)
        self.values.setdefault(target, []).append(np.sum(true * found, axis=1) / np.maximum(norms, 1e-12))

    def measured(self) -> tuple[dict[str, Estimate], dict[str, str]]:
        """Return the mean cosine of each modality, and over all."""
        if self.encode_fn is None:
            return {}, {"latents/cosine/given_rest": "the system has no latents of each modality"}
        finite = {name: [v[np.isfinite(v)] for v in parts] for name, parts in self.values.items()}
        finite = {name: parts for name, parts in finite.items() if any(map(len, parts))}
        metrics = {f"latents/cosine/given_rest/{name}": estimate(parts) for name, parts in finite.items()}
        if metrics:
            every = [values for parts in finite.values() for values in parts]
            metrics["latents/cosine/given_rest"] = estimate([np.concatenate(every)])
        return metrics, {}
