"""What compares generated data with the true data of the same row, and needs no labels."""

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
    """What is generated from what, and compared with the truth.

    Attributes:
      modality: the one that is compared; "" for each.
      given: the modalities that it is generated from; () for all others.
    """

    modality: str = ""
    given: tuple[str, ...] = ()


class Paired(Metric):
    """The mean over rows of a measure of generated and true data of one row.

    Rows that lack what is compared, or anything that it is generated from, are left out.
    """

    Options = PairedOptions
    name: str
    """The first part of the names of the metrics."""

    def __init__(self, options: PairedOptions, scene: Scene):
        """Ask for the modalities given the others."""
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
        """Check the names of modalities, and that what is compared is not given."""
        for name in {*options.given, *filter(None, [options.modality])}:
            if name not in plan.modalities:
                raise unknown(f"modality in config.evaluation.metrics.{cls.name}:", name, plan.modalities)
        if {options.modality} & {*options.given} or {*plan.modalities} == {*options.given}:
            what = repr(options.modality) if options.modality else "every modality"
            raise SbmError(f"config.evaluation.metrics.{cls.name}.given has {what}, so none is left to compare.")

    def reason_against(self, data: np.ndarray) -> str:
        """Return why data [N, *shape] can not be compared; "" for those that can."""
        del data
        return ""

    @abc.abstractmethod
    def compare(self, true: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return what is measured of each row, [R, ...], of data [R, *shape]; nan where there is nothing."""

    def estimates(self, label: str, groups: Sequence[np.ndarray]) -> dict[str, Estimate]:
        """Return estimates by name.

        Args:
          label: the last parts of their names: what was given, and the modality.
          groups: what `compare` returned in each repeat, where it is finite; one has a row at least.
        """
        return {f"{self.name}/{label}": estimate(groups)}

    def look(self, draw: Draw) -> None:
        """Compare the rows."""
        for name, ask in self.wanted.items():
            there = self.complete[name][draw.rows]
            if ask == draw.ask and there.any():
                found = self.compare(draw.real(name)[there], draw.generated(name)[there])
                self.values[name][draw.repeat].append(found)

    def result(self) -> Evaluation:
        """Return the mean of each modality, without samples that are not finite."""
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
