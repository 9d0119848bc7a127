"""The cost of samples, and how often sampling diverges."""

import time
from collections.abc import Sequence

import jax
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import unknown
from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.estimates import CALLS, Estimate, estimate
from sbm_jax.evaluation.metrics.base import Cost, Evaluation, Metric, Scene
from sbm_jax.evaluation.observed_sets import FIXED_ORDER, GIVEN_REST, RANDOM, UNCONDITIONAL

SETS = (GIVEN_REST, RANDOM, FIXED_ORDER, UNCONDITIONAL)
NUM_TIMED = 3


@checked_dataclass
class SamplingOptions:
    """The observed sets to sample.

    Attributes:
      sets: families of observed sets, from `SETS`, in addition to those that other metrics request.
    """

    sets: tuple[str, ...] = (UNCONDITIONAL,)

    def __post_init__(self):
        for name in self.sets:
            if name not in SETS:
                raise unknown("family of observed sets in evaluation.metrics.sampling.sets:", name, SETS)


class Sampling(Metric):
    """Network evaluations, the share of samples that diverged, and joint samples per second."""

    Options = SamplingOptions

    def __init__(self, options: SamplingOptions, scene: Scene):
        """Request samples of the families in `sets`."""
        super().__init__(options, scene)
        self.asks = tuple(ask for name in options.sets for ask in observed_sets.asks(name, scene.modalities))

    def result(self) -> Evaluation:
        """Return the cost of all calls, whichever metrics requested them, and the speed."""
        repeats = [costs for costs in self.scene.costs if costs]
        metrics = {"sampling/samples_per_second": self._speed()}
        if _reported("network_evaluations", repeats):
            groups = [np.repeat([c.info["network_evaluations"] for c in r], [c.num_rows for c in r]) for r in repeats]
            metrics["sampling/network_evaluations"] = estimate(groups)
        if _reported("decoder_evaluations", repeats):
            groups = [np.repeat([c.info["decoder_evaluations"] for c in r], [c.num_rows for c in r]) for r in repeats]
            metrics["sampling/decoder_evaluations"] = estimate(groups)
        if _reported("diverged", repeats):
            groups = [np.concatenate([np.arange(c.num_rows) < c.info["diverged"] for c in r]) for r in repeats]
            metrics["sampling/diverged"] = estimate(groups)
        names = (f"sampling/{name}" for name in ("network_evaluations", "diverged"))
        missing = {name: "the system does not report it" for name in names if name not in metrics}
        return Evaluation(metrics, missing, {})

    def _speed(self) -> Estimate:
        """Return the number of joint samples per second with nothing given, after a warm-up call that may compile."""
        scene, size = self.scene, self.scene.batch_size
        chosen = np.resize(np.arange(len(scene.complete)), size)
        batch = {name: in_units(scene.examples.data[name][chosen]) for name in scene.modalities}
        nothing, key = np.zeros((size, len(batch)), bool), scene.key(0)
        jax.block_until_ready(scene.subject.generate(key, batch, nothing, 1))
        rates = []
        for index in range(NUM_TIMED):
            start = time.perf_counter()
            jax.block_until_ready(scene.subject.generate(jax.random.fold_in(key, index), batch, nothing, 1))
            rates.append(size / (time.perf_counter() - start))
        return estimate([[rate] for rate in rates], CALLS)._replace(n=NUM_TIMED * size)


def _reported(name: str, repeats: Sequence[Sequence[Cost]]) -> bool:
    return all(name in cost.info for costs in repeats for cost in costs)
