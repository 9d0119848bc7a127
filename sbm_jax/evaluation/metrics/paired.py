"""Base of metrics that compare generated data with the true data of the same row, without labels."""

import abc
import collections
from collections.abc import Sequence

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.estimates import Estimate, estimate
from sbm_jax.evaluation.metrics.base import ALONE, Draw, Evaluation, Metric, Plan, Scene
from sbm_jax.evaluation.observed_sets import ask_given


@checked_dataclass
class PairedOptions:
    """The modality to generate and compare with the truth, and the given modalities.

    Attributes:
      modality: the compared modality; "" for each.
      given: the modalities it is generated from; () for all others.
    """

    modality: str = ""
    given: tuple[str, ...] = ()


class Paired(Metric):
    """The mean over rows of a measure that compares the generated and true data of a row.

    Rows that lack the compared modality or a given one are left out.
    """

    Options = PairedOptions
    name: str
    """First part of the names of the metrics."""

    def __init__(self, options: PairedOptions, scene: Scene):
        """Request each compared modality given the others."""
        super().__init__(options, scene)
        names = (options.modality,) if options.modality else scene.modalities
        targets = [name for name in names if name not in options.given]
        given = {target: options.given or tuple(n for n in scene.modalities if n != target) for target in targets}
        self.complete = {target: scene.examples.having((target, *given[target])) for target in targets}
        reasons = {target: self.reason_against(scene.examples.data[target]) for target in targets}
        self.reasons = {target: reason for target, reason in reasons.items() if reason}
        self.wanted = {
            target: ask_given(options.given, target, scene.modalities)
            for target in targets
            if len(scene.modalities) > 1 and target not in self.reasons
        }
        self.asks = tuple(self.wanted.values())
        self.values: dict[str, dict[int, list[np.ndarray]]] = {
            name: collections.defaultdict(list) for name in self.wanted
        }  # {modality: {repeat: values of each draw}}

    @classmethod
    def check(cls, options: PairedOptions, plan: Plan) -> None:
        """Check that modalities are known, and that no compared modality is given."""
        for name in {*options.given, *filter(None, [options.modality])}:
            if name not in plan.modalities:
                raise unknown(f"modality in config.evaluation.metrics.{cls.name}:", name, plan.modalities)
        if {options.modality} & {*options.given} or {*plan.modalities} == {*options.given}:
            what = repr(options.modality) if options.modality else "every modality"
            raise SbmError(
                f"config.evaluation.metrics.{cls.name}.given has {what}, so nothing is left to compare. Remove it."
            )

    def reason_against(self, data: np.ndarray) -> str:
        """Return why data [N, *shape] cannot be compared, or ""."""
        del data
        return ""

    @abc.abstractmethod
    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the measure of each row, [R, ...], from data [R, *shape]; NaN where it is undefined."""

    def estimates(self, label: str, groups: Sequence[np.ndarray]) -> dict[str, Estimate]:
        """Return {name: estimate}.

        Args:
          label: last parts of the names: what was given, and the modality.
          groups: finite results of `compare` for each repeat; at least one repeat has a row.
        """
        return {f"{self.name}/{label}": estimate(groups)}

    def look(self, draw: Draw) -> None:
        """Compare the rows of a draw."""
        for name, ask in self.wanted.items():
            there = self.complete[name][draw.rows]
            if ask == draw.ask and there.any():
                found = self.compare(draw.real(name)[there], draw.generated(name)[there])
                self.values[name][draw.repeat].append(found)

    def result(self) -> Evaluation:
        """Return the mean for each modality, leaving out samples that are not finite."""
        given = "given_" + ("+".join(n for n in self.scene.modalities if n in self.options.given) or "rest")
        metrics, missing = {}, {f"{self.name}/{given}/{name}": reason for name, reason in self.reasons.items()}
        if len(self.scene.modalities) == 1:
            missing = {self.name: ALONE}
        for name, repeats in self.values.items():
            finite = [values[finite_rows(values)] for values in map(np.concatenate, repeats.values())]
            if any(map(len, finite)):
                metrics |= self.estimates(f"{given}/{name}", finite)
            else:
                missing[f"{self.name}/{given}/{name}"] = "no sample is finite"
        return Evaluation(metrics, missing, {})
