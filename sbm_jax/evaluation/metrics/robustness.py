"""Robustness of generated data to attacks on the given data."""

import dataclasses

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Scene
from sbm_jax.evaluation.metrics.binary import BinaryOptions
from sbm_jax.evaluation.metrics.f1 import F1

NO_READER = "an attack needs the gradient of a reader, and config.readers has none of this modality from the given ones"


@checked_dataclass
class RobustnessOptions(BinaryOptions):
    """The predicted and given modalities, and the attacks on one of these by a reader of `config.readers`.

    Attributes:
      strengths: ε of each attack, in the units of the attacked data; the score without an attack is measured too.
    """

    strengths: tuple[float, ...] = (0.05,)

    def __post_init__(self):
        where = "config.evaluation.metrics.robustness.strengths"
        positive = bool(self.strengths) and min(self.strengths) > 0
        require(positive, where, self.strengths, "one or more positive numbers")


class Attacked(F1):
    """The F1 score under an attack of one strength."""

    name = "robustness"

    def __init__(self, options: RobustnessOptions, scene: Scene, misread: tuple[str, str], strength: float):
        """Request the modality given attacked data."""
        super().__init__(options, scene)
        if strength:
            attacked = {"attack": strength, "misread": misread}
            self.wanted = {name: dataclasses.replace(ask, **attacked) for name, ask in self.wanted.items()}
        self.asks = tuple(self.wanted.values())


class Robustness(F1):
    """The F1 score with and without attacks, and its relative drop; see `f1.F1`.

    Reference: D. Wesego and A. Rooshenas, "Score-Based Multimodal Autoencoder", 2024, section 4.2.1.
      https://openreview.net/forum?id=JbuP6UV3Fk
    """

    Options = RobustnessOptions
    name = "robustness"

    def __init__(self, options: RobustnessOptions, scene: Scene):
        """Request the modality given attacked data, at each strength."""
        super().__init__(options, scene)
        given = options.given or [name for name in scene.modalities if name != options.modality]
        readers = [pair for pair in scene.tools.readers if pair[0] in given and pair[1] == options.modality]
        strengths = (0.0, *options.strengths) if readers else ()
        self.attacked = {strength: Attacked(options, scene, readers[0], strength) for strength in strengths}
        self.asks = tuple(ask for part in self.attacked.values() for ask in part.asks)

    def look(self, draw: Draw) -> None:
        """Score the rows of a draw, each under its attack."""
        for part in self.attacked.values():
            part.look(draw)

    def result(self) -> Evaluation:
        """Return the scores by strength, and the relative drops, over rows with finite samples."""
        if not self.attacked:
            return Evaluation({}, {self.name: NO_READER}, {})
        metrics, missing = {}, {}
        clean = self.attacked[0.0].result().metrics
        for strength, part in self.attacked.items():
            found = part.result()
            missing |= found.not_available
            for name, score in found.metrics.items():
                metrics[f"{name}/f1" + (f"/attack_{strength:g}" if strength else "")] = score
                if strength and name in clean and clean[name].value > 0:
                    drop = 1.0 - score.value / clean[name].value
                    metrics[f"{name}/drop/attack_{strength:g}"] = Estimate(drop, None, score.n)
        return Evaluation(metrics, missing, {})
