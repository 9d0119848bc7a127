"""How much of what a system predicts an attack on what it is given takes away."""

import collections
import dataclasses

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation.batches import finite_rows
from sbm_jax.evaluation.estimates import Estimate, estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, Plan, Scene
from sbm_jax.evaluation.metrics.f1 import f1
from sbm_jax.evaluation.observed_sets import ask_given

NO_ATTACKER = "there is no attacker (config.attacker)"


@checked_dataclass
class RobustnessOptions:
    """What is predicted from what, under which attacks.

    Attributes:
      modality: the binary attributes, or the mask, that are predicted.
      given: the modalities that it is predicted from, the attacked one (`config.attacker.source`) among them; () for
        all others.
      strengths: ε of each attack, in the units of the attacked data; without one is measured too.
      threshold: an attribute is there where its value is above.
    """

    modality: str = ""
    given: tuple[str, ...] = ()
    strengths: tuple[float, ...] = (0.05,)
    threshold: float = 0.5

    def __post_init__(self):
        where = "config.evaluation.metrics.robustness.strengths"
        positive = bool(self.strengths) and min(self.strengths) > 0
        require(positive, where, self.strengths, "one or more positive numbers")


class Robustness(Metric):
    """The F1 score under attacks, without any, and by how much of itself it drops; see `f1.F1`.

    Reference: D. Wesego and A. Rooshenas, "Score-Based Multimodal Autoencoder", 2024, section 4.2.1.
      https://openreview.net/forum?id=JbuP6UV3Fk
    """

    Options = RobustnessOptions

    def __init__(self, options: RobustnessOptions, scene: Scene):
        """Ask for the modality given the attacked ones, at each strength."""
        super().__init__(options, scene)
        self.asks, self.values = (), {}
        if scene.tools.attack is not None:
            clean = ask_given(options.given, options.modality, scene.modalities)
            self.asks = tuple(dataclasses.replace(clean, attack=strength) for strength in (0.0, *options.strengths))
            self.values = {ask: collections.defaultdict(list) for ask in self.asks}

    @classmethod
    def check(cls, options: RobustnessOptions, plan: Plan) -> None:
        """Check the names of modalities."""
        where = "config.evaluation.metrics.robustness"
        require(bool(options.modality), f"{where}.modality", options.modality, f"one of {', '.join(plan.modalities)}")
        for name in (options.modality, *options.given):
            if name not in plan.modalities:
                raise unknown(f"modality in {where}:", name, plan.modalities)
        if options.modality in options.given:
            raise SbmError(f"{where}.given has {options.modality!r}, so it need not be predicted. Leave it out.")

    def look(self, draw: Draw) -> None:
        """Score the rows."""
        threshold, generated = self.options.threshold, draw.generated(self.options.modality)
        scores = f1(draw.real(self.options.modality) > threshold, generated > threshold)
        self.values[draw.ask][draw.repeat].append(np.where(finite_rows(generated), scores, np.nan))

    def result(self) -> Evaluation:
        """Return the scores by strength, and the drops, of rows whose samples are finite."""
        given = "+".join(name for name in self.scene.modalities if name in self.options.given) or "rest"
        name = f"robustness/given_{given}/{self.options.modality}"
        if not self.asks:
            return Evaluation({}, {name: NO_ATTACKER}, {})
        found = {}
        for ask, repeats in self.values.items():
            finite = [values[np.isfinite(values)] for values in map(np.concatenate, repeats.values())]
            if not any(map(len, finite)):
                return Evaluation({}, {name: "no sample is finite"}, {})
            found[ask.attack] = estimate(finite)
        clean = found.pop(0.0)
        metrics = {f"{name}/f1": clean}
        for strength, score in found.items():
            metrics[f"{name}/f1/attack_{strength:g}"] = score
            if clean.value > 0:
                drop = 1.0 - score.value / clean.value
                metrics[f"{name}/drop/attack_{strength:g}"] = Estimate(drop, None, score.n)
        return Evaluation(metrics, {}, {})
