"""Agreement of images and texts according to CLIP."""

import collections

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.estimates import BATCHES, Estimate, estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, Plan, Scene
from sbm_jax.evaluation.observed_sets import UNCONDITIONAL, Ask, ask_given

NO_CLIP = "there are no weights of CLIP (config.evaluation.clip)"


@checked_dataclass
class ClipScoreOptions:
    """The two modalities to compare.

    Attributes:
      image: a modality of images in [0, 1].
      text: a modality of texts.
    """

    image: str = ""
    text: str = ""


class ClipScore(Metric):
    """100 max(cos, 0) of CLIP's embeddings of image and text: for each given the other, and for joint samples.

    The score of real held-out rows is reported too. As in the reference, each pair is clipped at 0, not the mean.

    Reference: J. Hessel et al., "CLIPScore", 2021, Eq. 1 with w = 100 and texts as they are, without a prompt.
      https://arxiv.org/abs/2104.08718
    """

    Options = ClipScoreOptions

    def __init__(self, options: ClipScoreOptions, scene: Scene):
        """Request each modality given the other, and joint samples."""
        super().__init__(options, scene)
        self.scores: dict[str, dict[int, list[np.ndarray]]] = {}  # {name: {repeat: of each draw}}
        self.there = scene.examples.having((options.image, options.text))
        self.names: dict[Ask, str] = {}
        for source, target in ((options.image, options.text), (options.text, options.image)):
            self.names[ask_given((source,), target, scene.modalities)] = f"clip_score/given_{source}/{target}"
        self.names[Ask(UNCONDITIONAL)] = f"clip_score/unconditional/{options.image}/{options.text}"
        if scene.tools.clip is not None:
            self.asks = tuple(self.names)

    @classmethod
    def check(cls, options: ClipScoreOptions, plan: Plan) -> None:
        """Check that image and text are two known modalities."""
        for field in ("image", "text"):
            if (name := getattr(options, field)) not in plan.modalities:
                raise unknown(f"modality (config.evaluation.metrics.clip_score.{field}):", name, plan.modalities)
        if options.image == options.text:
            raise SbmError(
                f"config.evaluation.metrics.clip_score: image and text are both {options.image!r}; name two modalities."
            )

    def look(self, draw: Draw) -> None:
        """Collect the scores of all finite pairs, in which one modality may be given."""
        data = {name: draw.generated(name) for name in (self.options.image, self.options.text)}
        scores = self._scores(data)
        there = np.isfinite(scores)
        if draw.ask.family != UNCONDITIONAL:
            there &= self.there[draw.rows]
        repeats = self.scores.setdefault(self.names[draw.ask], collections.defaultdict(list))
        repeats[draw.repeat].append(scores[there])

    def _scores(self, data: dict[str, np.ndarray]) -> np.ndarray:
        """Return the scores [R] of pairs, NaN where data are not finite."""
        vectors = self.scene.tools.clip(data)
        cosines = np.sum(vectors[self.options.image] * vectors[self.options.text], axis=1)
        return 100 * np.maximum(cosines, 0)

    def result(self) -> Evaluation:
        """Return means over samples, and over real rows."""
        if self.scene.tools.clip is None:
            return Evaluation({}, dict.fromkeys(self.names.values(), NO_CLIP), {})
        metrics, missing = {}, {}
        for name in self.names.values():
            groups = [np.concatenate(parts) for parts in self.scores.get(name, {}).values()]
            if any(map(len, groups)):
                metrics[name] = estimate(groups)
            else:
                missing[name] = "no sample is finite, or no row has both modalities"
        return Evaluation(metrics | self._of_real(), missing, {})

    def _of_real(self) -> dict[str, Estimate]:
        """Return the score of the examples that have both modalities."""
        options, rows, found = self.options, np.flatnonzero(self.there), []
        for indices, count in batches(len(rows), self.scene.batch_size):
            read = self.scene.examples.read([options.image, options.text], rows[indices])
            found.append(self._scores({name: in_units(values) for name, values in read.items()})[:count])
        name = f"clip_score/real/{options.image}/{options.text}"
        return {name: estimate([np.concatenate(found)], BATCHES)} if found else {}
