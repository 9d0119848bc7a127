"""Do generated modalities show the same class, and the class of the given data?

All functions take the class that a classifier predicts for each modality, `predicted` int [B, M], with `NO_CLASS` where
a sample is not finite.
"""

import collections

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import unknown
from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.estimates import estimate
from sbm_jax.evaluation.metrics.base import (
    ALONE,
    LABEL,
    NO_CLASS,
    NO_CLASSIFIER,
    NO_LABELS,
    Draw,
    Evaluation,
    Metric,
    Plan,
    Scene,
    check_targets,
    prefixed,
)
from sbm_jax.evaluation.observed_sets import FIXED_ORDER, FROM_ONE, GIVEN_REST, RANDOM, TO_TARGET, UNCONDITIONAL, Ask
from sbm_jax.types import NOT_ASKED

SETS = {
    GIVEN_REST: ("given_rest",),
    RANDOM: ("given_k",),
    FIXED_ORDER: ("fixed_order/given_k",),
    TO_TARGET: ("to_target/given_k",),
    FROM_ONE: ("from/<given>/to/<target>",),
    UNCONDITIONAL: ("unconditional_k", "unconditional_majority_k"),
}
"""The families of observed sets, and the metrics measured on each."""

NAMES = {
    GIVEN_REST: "given_rest/{target}",
    RANDOM: "given_{size}",
    FIXED_ORDER: "fixed_order/given_{size}",
    TO_TARGET: "to_target/given_{size}/{target}",
}
"""The metric of each family's samples; samples of `FROM_ONE` have one metric per target."""


@checked_dataclass
class CoherenceOptions:
    """The observed sets on which coherence is measured.

    Attributes:
      sets: families of observed sets, keys of `SETS`.
      targets: modalities that the family ``"to_target"`` generates, each given the first one, two, ... others; () for
        the first modality.
    """

    sets: tuple[str, ...] = (GIVEN_REST, RANDOM, FIXED_ORDER, FROM_ONE, UNCONDITIONAL)
    targets: tuple[str, ...] = ()

    def __post_init__(self):
        for name in self.sets:
            if name not in SETS:
                raise unknown("family of observed sets in evaluation.metrics.coherence.sets:", name, SETS)


class Coherence(Metric):
    """The share of samples that show the class of the given data, or agree on a class, for each question."""

    Options = CoherenceOptions

    def __init__(self, options: CoherenceOptions, scene: Scene):
        """Request samples of the families that can be measured."""
        super().__init__(options, scene)
        self.questions = list(scene.tools.classifiers)
        self.missing = {
            (question, family): reason
            for question in self.questions or [LABEL]
            for family in SETS
            if (reason := self._reason(question, family))
        }
        judged = [family for family in options.sets if any((q, family) not in self.missing for q in self.questions)]
        targets = {TO_TARGET: options.targets}
        self.families: dict[Ask, list[str]] = {}  # the families of each ask
        for name in judged:
            for ask in observed_sets.asks(name, scene.modalities, targets.get(name, ())):
                self.families.setdefault(ask, []).append(name)
        self.asks = tuple(self.families)
        self.outcomes: dict[str, dict[int, list[np.ndarray]]] = collections.defaultdict(
            lambda: collections.defaultdict(list)
        )  # {metric: {repeat: outcomes of each draw}}

    @classmethod
    def check(cls, options: CoherenceOptions, plan: Plan) -> None:
        """Check the targets if they are used."""
        check_targets("coherence", options, plan.modalities)

    def _reason(self, question: str, family: str) -> str | None:
        """Return why a family cannot be measured, or None."""
        if family not in self.options.sets:
            return f"{NOT_ASKED}: {family!r} is not in evaluation.metrics.coherence.sets"
        if not self.questions:
            return NO_CLASSIFIER
        if family == UNCONDITIONAL:
            return None
        if question not in self.scene.examples.labels:
            return NO_LABELS
        return None if len(self.scene.modalities) > 1 else ALONE

    def look(self, draw: Draw) -> None:
        """Collect the outcome of each row."""
        for question in self.questions:
            for family in self.families[draw.ask]:
                if (question, family) in self.missing:
                    continue
                for name, values in self._outcomes(draw, family, question).items():
                    self.outcomes[prefixed("coherence", question, name)][draw.repeat].append(values)

    def _outcomes(self, draw: Draw, family: str, question: str) -> dict[str, np.ndarray]:
        """Return {metric: outcome of each row, [R]} for the metrics of a family."""
        classes, ask, names = draw.classes(question), draw.ask, self.scene.modalities
        if family == UNCONDITIONAL:
            return unconditional(classes)
        truth = draw.labels(question)
        if family == FROM_ONE:
            given = int(np.argmax(draw.observed[0]))
            shown = {name: classes[:, m] == truth for m, name in enumerate(names) if m != given}
            return {f"from/{names[given]}/to/{name}": right for name, right in shown.items()}
        name = NAMES[family].format(size=ask.size, target=ask.target)
        if ask.target:
            right = classes[:, names.index(ask.target)] == truth
            return {name: right} | ({GIVEN_REST: right} if family == GIVEN_REST else {})
        outcomes = {name: conditional(classes, truth, draw.observed)}
        if family == FIXED_ORDER:
            outcomes[f"{name}/last"] = classes[:, -1] == truth
        return outcomes

    def result(self) -> Evaluation:
        """Return the means over rows and generated modalities."""
        metrics = {
            name: estimate([np.concatenate(parts) for parts in repeats.values()])
            for name, repeats in self.outcomes.items()
        }
        missing = {
            prefixed("coherence", question, name): reason
            for (question, family), reason in self.missing.items()
            for name in SETS[family]
        }
        return Evaluation(metrics, missing, {})


def unconditional(predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Return {name: whether at least k modalities agree in each row, bool [B]}, for each k."""
    num_modalities = predicted.shape[1]
    outcomes = {}
    for prefix, rule in (("unconditional", "first"), ("unconditional_majority", "majority")):
        count = agreement(predicted, rule)
        outcomes |= {f"{prefix}_{k}": count >= k for k in range(2, num_modalities + 1)}
    if num_modalities > 1:
        outcomes["unconditional_all"] = outcomes[f"unconditional_{num_modalities}"]
    return outcomes


def conditional(predicted: np.ndarray, labels: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the share of each row's unobserved modalities that show its label, [B], NaN where all are observed.

    Args:
      predicted: int [B, M].
      labels: int [B], classes of the given data.
      observed: bool [B, M] or [M], True = given.
    """
    free = np.broadcast_to(~observed, predicted.shape)
    correct = (predicted == labels[:, None]) & free
    count = free.sum(axis=1)
    return np.where(count > 0, correct.sum(axis=1) / np.maximum(count, 1), np.nan)


def _agree_with_first(predicted: np.ndarray) -> np.ndarray:
    shown = predicted != NO_CLASS
    return ((predicted == predicted[:, :1]) & shown).sum(axis=1)


def _agree_with_majority(predicted: np.ndarray) -> np.ndarray:
    shown = predicted != NO_CLASS
    same = (predicted[:, :, None] == predicted[:, None, :]) & shown[:, :, None]
    return same.sum(axis=1).max(axis=1)


RULES = {"first": _agree_with_first, "majority": _agree_with_majority}


def agreement(predicted: np.ndarray, rule: str = "first") -> np.ndarray:
    """Return how many of the M modalities of each row agree, int [B].

    Args:
      predicted: int [B, M].
      rule: ``"first"`` counts the modalities with the class of modality 0, including itself, as published baselines
        do; ``"majority"`` counts those with the row's most frequent class.

    Raises:
      SbmError: if `rule` is unknown.
    """
    if rule not in RULES:
        raise unknown("agreement rule", rule, RULES)
    return RULES[rule](predicted)
