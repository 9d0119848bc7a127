"""Agreement of generated data with the data they are generated from, in an embedding space of all modalities."""

import collections

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation.batches import batches, in_units
from sbm_jax.evaluation.estimates import BATCHES, Estimate, estimate
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, Plan, Scene
from sbm_jax.evaluation.observed_sets import UNCONDITIONAL, Ask, ask_given

ROUNDING = 1e-5
"""Cosines within this difference count as equal: sums for one source in two rows may be taken in different orders."""

NO_MATCHER = "there is no matcher (config.matcher)"


@checked_dataclass
class AgreementOptions:
    """The two modalities to compare.

    Attributes:
      source: the given modality.
      target: the modality generated from it.
      from_nothing: generate both unconditionally, and compare them with each other.
      candidates: number of held-out rows, including the true one, among which the true source is ranked.
    """

    source: str = ""
    target: str = ""
    from_nothing: bool = False
    candidates: int = 100

    def __post_init__(self):
        require(self.candidates >= 2, "evaluation.metrics.agreement.candidates", self.candidates, "2 or more")


class Agreement(Metric):
    """The cosine between embeddings of source and target, and the rank of the true source by it; 1 is best.

    Embeddings are a matcher's (`systems.matcher`). The same numbers are reported for real held-out rows.
    """

    Options = AgreementOptions
    name = "agreement"

    def __init__(self, options: AgreementOptions, scene: Scene):
        """Request the target given the source, or both unconditionally."""
        super().__init__(options, scene)
        names = (options.source, options.target)
        self.there = scene.examples.having(names)
        self.cosines: dict[int, list[np.ndarray]] = collections.defaultdict(list)  # {repeat: of each draw}
        self.ranks: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        if scene.tools.embed is None:
            return
        self.ask = ask_given((options.source,), options.target, scene.modalities)
        if options.from_nothing:
            self.ask = Ask(UNCONDITIONAL)
        self.asks = (self.ask,)
        rows = np.flatnonzero(self.there)
        self.candidates = rows[np.random.default_rng(0).permutation(len(rows))[: options.candidates]]
        self.vectors = {name: self._real(name, self.candidates) for name in names}

    @classmethod
    def check(cls, options: AgreementOptions, plan: Plan) -> None:
        """Check that source and target are two known modalities."""
        for field in ("source", "target"):
            if (name := getattr(options, field)) not in plan.modalities:
                raise unknown(f"modality (config.evaluation.metrics.agreement.{field}):", name, plan.modalities)
        if options.source == options.target:
            raise SbmError(
                f"config.evaluation.metrics.agreement: source and target are both {options.source!r}; name two "
                "modalities."
            )

    def look(self, draw: Draw) -> None:
        """Collect the cosines, and the ranks of the true sources."""
        options = self.options
        if draw.ask != self.ask:
            return
        targets, sources = draw.embedded(options.target), draw.embedded(options.source, real=not options.from_nothing)
        cosines = np.sum(targets * sources, axis=1)
        there = np.isfinite(cosines)
        if not options.from_nothing:
            there &= self.there[draw.rows]
        if not options.from_nothing and there.any():
            self.ranks[draw.repeat].append(self._ranks(targets[there], sources[there], draw.rows[there]))
        self.cosines[draw.repeat].append(cosines[there])

    def _ranks(self, targets: np.ndarray, true: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the ranks [R] of the true sources among all candidates other than the row itself, from 1.

        Ties with the true source count half, so that a matcher that distinguishes nothing has the rank of chance.
        """
        own = np.sum(targets * true, axis=1, keepdims=True)
        others = self.candidates[None] != rows[:, None]
        # Rank among equally many for all rows: leave out the last candidate if the row is not a candidate.
        others[others.all(axis=1), -1] = False
        nearer = targets @ self.vectors[self.options.source].T - own
        before = np.where(np.abs(nearer) <= ROUNDING, 0.5, nearer > 0)
        return 1.0 + np.sum(others * before, axis=1)

    def result(self) -> Evaluation:
        """Return means over samples, and over real rows."""
        options, tools = self.options, self.scene.tools
        pair = f"{options.source}/{options.target}"
        label = f"unconditional/{pair}" if options.from_nothing else f"given_{pair}"
        if tools.embed is None:
            return Evaluation({}, {f"agreement/cosine/{label}": NO_MATCHER}, {})
        values = {f"agreement/cosine/{label}": self.cosines, f"agreement/rank/{label}": self.ranks}
        metrics, missing = {}, {}
        for name, repeats in values.items():
            groups = [np.concatenate(parts) for parts in repeats.values()]
            if any(map(len, groups)):
                metrics[name] = estimate(groups)
            elif not (options.from_nothing and name.startswith("agreement/rank")):
                missing[name] = "no sample is finite, or no row has both modalities"
        return Evaluation(metrics | self._of_real(pair), missing, {})

    def _of_real(self, pair: str) -> dict[str, Estimate]:
        """Return the metrics of the real candidates."""
        source, target = (self.vectors[name] for name in (self.options.source, self.options.target))
        if len(self.candidates) < 2:
            return {}
        cosines, ranks = np.sum(source * target, axis=1), self._ranks(target, source, self.candidates)
        return {
            f"agreement/cosine/real/{pair}": estimate([cosines], BATCHES),
            f"agreement/rank/real/{pair}": estimate([ranks], BATCHES),
        }

    def _real(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings [K, E] of one modality of the examples at indices `rows`, int [K]."""
        found = []
        for indices, count in batches(len(rows), self.scene.batch_size):
            data = in_units(self.scene.examples.data[name][rows[indices]])
            found.append(self.scene.tools.embed({name: data})[name][:count])
        return np.concatenate(found) if found else np.zeros((0, 1))
