"""A metric of a third party: how bright samples are, in units of real ones."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.evaluation import Draw, Evaluation, Metric, ask_given, estimate


@checked_dataclass
class BrightnessOptions:
    """What is looked at.

    Attributes:
      modality: the one that is generated.
      given: the modalities that it is generated from; () for all others.
    """

    modality: str
    given: tuple[str, ...] = ()


class Brightness(Metric):
    """The mean of a generated modality, relative to the true one."""

    Options = BrightnessOptions

    def __init__(self, options, scene):
        super().__init__(options, scene)
        self.asks = (ask_given(options.given, options.modality, scene.modalities),)
        self.values = {}  # {repeat: ratios of each draw}

    @classmethod
    def check(cls, options, plan):
        ask_given(options.given, options.modality, plan.modalities)

    def look(self, draw: Draw) -> None:
        found, true = (np.asarray(x).mean(axis=(1, 2, 3)) for x in self._pair(draw))
        self.values.setdefault(draw.repeat, []).append(found / true)

    def _pair(self, draw):
        return draw.generated(self.options.modality), draw.real(self.options.modality)

    def result(self) -> Evaluation:
        ratios = [np.concatenate(parts) for parts in self.values.values()]
        return Evaluation({f"brightness/{self.options.modality}": estimate(ratios)}, {}, {})
