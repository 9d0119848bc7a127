"""Lower bounds on the log likelihood, from importance weights."""

from collections.abc import Mapping

import jax
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.evaluation.batches import in_units
from sbm_jax.evaluation.estimates import STANDARD_ERROR, Estimate
from sbm_jax.evaluation.metrics.base import Evaluation, LogWeightsFn, Metric, Plan
from sbm_jax.types import NOT_ASKED, Key

MEASURES = ("likelihood/elbo", "likelihood/importance_weighted")


@checked_dataclass
class LikelihoodOptions:
    """How bounds are estimated.

    Attributes:
      num_examples: number of held-out rows; 0 for no bounds.
      num_samples: K, posterior samples per row for the importance-weighted bound.
      batch_size: rows per compiled call.
      samples_per_call: posterior samples per compiled call, a divisor of num_samples.
    """

    num_examples: int = 0
    num_samples: int = 64
    batch_size: int = 50
    samples_per_call: int = 8

    def __post_init__(self):
        require(
            self.num_examples >= 0, "evaluation.metrics.likelihood.num_examples", self.num_examples, "0 (none) or more"
        )
        for name in ("num_samples", "batch_size", "samples_per_call"):
            require(
                getattr(self, name) >= 1, f"evaluation.metrics.likelihood.{name}", getattr(self, name), "at least 1"
            )
        divides = self.num_samples % self.samples_per_call == 0
        require(
            divides, "evaluation.metrics.likelihood.samples_per_call", self.samples_per_call, "a divisor of num_samples"
        )


class Likelihood(Metric):
    """The ELBO and the importance-weighted bound of held-out rows, for systems that have them."""

    Options = LikelihoodOptions

    @classmethod
    def check(cls, options: LikelihoodOptions, plan: Plan) -> None:
        """Check that there are enough examples."""
        if options.num_examples > plan.num_examples:
            raise SbmError(
                f"evaluation.metrics.likelihood.num_examples is {options.num_examples}, but evaluation.num_examples "
                f"is {plan.num_examples}; it cannot be more. Lower the first, or raise the second."
            )

    def result(self) -> Evaluation:
        """Return the bounds, and why some are missing."""
        subject, data = self.scene.subject, self.scene.complete.data
        if not self.options.num_examples:
            reason = f"{NOT_ASKED}: evaluation.metrics.likelihood.num_examples is 0"
            return Evaluation({}, {MEASURES[0]: reason}, {})
        if subject.log_weights is None:
            return Evaluation({}, {MEASURES[0]: "the system has none"}, {})
        data = {name: data[name][: self.options.num_examples] for name in self.scene.modalities}
        found = bounds(subject.log_weights, subject.costly_weights, data, self.scene.key(1), self.options)
        return Evaluation(*found, {})


def bounds(
    weights_fn: LogWeightsFn,
    costly: bool,
    data: Mapping[str, np.ndarray],
    key: Key,
    options: LikelihoodOptions,
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return the ELBO and the importance-weighted bound on log p(x), in nats per row, with standard errors.

    Rows whose bound is not finite are left out.

    Args:
      weights_fn: `(key, float data, S) -> log p(x, z_s) - log q(z_s | x) [B, S]`, compiled for each S.
      costly: draw only one sample per row, which gives no importance-weighted bound.
      data: held-out rows, {modality: [n, *shape]}.
      key: a typed key.
      options: see `LikelihoodOptions`.

    Returns:
      {name: bound}, and {name: why it is not available}.
    """
    num_rows = len(next(iter(data.values())))
    size, per_call = min(options.batch_size, num_rows), 1 if costly else options.samples_per_call
    total = 1 if costly else options.num_samples
    weights = []
    for start in range(0, num_rows, size):
        first = min(start, num_rows - size)  # the last batch starts early, to keep the compiled size
        batch = {name: in_units(array[first : first + size]) for name, array in data.items()}
        batch_key = jax.random.fold_in(key, start)
        calls = [weights_fn(jax.random.fold_in(batch_key, i), batch, per_call) for i in range(total // per_call)]
        weights.append(np.concatenate([np.asarray(call, np.float64) for call in calls], axis=1)[start - first :])
    return _bounds_of(np.concatenate(weights), costly)


def _bounds_of(weights: np.ndarray, costly: bool) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return {name: bound} from log weights [n, K], and {name: why it is not available}."""
    count, total = weights.shape
    weights = weights[~np.isnan(weights).any(axis=1)]
    bounds_of_rows = {MEASURES[0]: weights.mean(axis=1)}
    missing = {}
    if costly:
        missing[MEASURES[1]] = "the weight of each sample takes many network evaluations, or is the estimate of a bound"
    else:
        bounds_of_rows[MEASURES[1]] = np.logaddexp.reduce(weights, axis=1) - np.log(total)
    found = {}
    for name, values in bounds_of_rows.items():
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = _estimate(values)
        if len(values) < count:
            name = f"{name}/rows_left_out" if len(values) else name
            missing[name] = f"{count - len(values)} of {count} rows have no finite bound"
    return found, missing


def _estimate(values: np.ndarray) -> Estimate:
    value, count = float(values.mean()), len(values)
    if count == 1:
        return Estimate(value, None, count)
    return Estimate(value, float(values.std(ddof=1) / count**0.5), count, STANDARD_ERROR)
