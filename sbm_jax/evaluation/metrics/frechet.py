"""Distances between generated and real data, in the feature space of a network."""

import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation import observed_sets
from sbm_jax.evaluation.batches import finite_rows, in_units
from sbm_jax.evaluation.estimates import Estimate, average
from sbm_jax.evaluation.features import FEWEST, FeatureSpace, flat
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, Plan, Scene, check_targets
from sbm_jax.evaluation.observed_sets import FIXED_ORDER, FROM_ONE, GIVEN_REST, TO_TARGET, UNCONDITIONAL, Ask
from sbm_jax.types import NOT_ASKED, Split

RECONSTRUCTION = "reconstruction"

SETS = (GIVEN_REST, FROM_ONE, UNCONDITIONAL, FIXED_ORDER, TO_TARGET, RECONSTRUCTION)
"""Sets of samples that can be compared: in ``fixed_order`` only the last modality, in ``to_target`` the targets."""

REFERENCES = ("held_out", "train")

BATCH = 250  # reconstructions held in memory

Found = dict[tuple[str, str], dict[str, Estimate]]  # {(set of samples, modality): {measure: distance}}


@checked_dataclass
class FrechetOptions:
    """What is compared with real data.

    Attributes:
      num_examples: samples per distance, from the first repeat, or from all (`all_repeats`); 0 for no distances. For
        videos and sounds, all frames and windows count; those of one sample are correlated, so the standard error is
        too small.
      num_real: real examples to compare with; 0 for all.
      sets: sets of samples to compare, from `SETS`.
      targets: modalities that ``"to_target"`` generates; () for the first.
      modalities: modalities to evaluate; () for all that the feature space supports. Inception supports images and
        videos of three channels in [0, 1]; those of one channel are evaluated only if named here.
      space: the feature space: ``"inception"``, for images and video frames, ``"vggish"``, for sounds, or
        ``"classifier_features"``; "" for the first that is available.
      all_repeats: use samples of all repeats, which condition on the same rows, so the standard error is too small.
      reference: source of the real examples, ``"held_out"`` or ``"train"``; few held-out rows inflate all distances.
    """

    num_examples: int = 0
    num_real: int = 0
    sets: tuple[str, ...] = (GIVEN_REST, UNCONDITIONAL)
    targets: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    space: str = ""
    all_repeats: bool = False
    reference: str = "held_out"

    def __post_init__(self):
        where = "evaluation.metrics.frechet.num_examples"
        require(
            self.num_examples == 0 or self.num_examples >= FEWEST, where, self.num_examples, f"0, or {FEWEST} or more"
        )
        where = "evaluation.metrics.frechet.num_real"
        require(self.num_real == 0 or self.num_real >= FEWEST, where, self.num_real, f"0 (all), or {FEWEST} or more")
        if self.reference not in REFERENCES:
            raise unknown("evaluation.metrics.frechet.reference:", self.reference, REFERENCES)
        for name in self.sets:
            if name not in SETS:
                raise unknown("set of samples in evaluation.metrics.frechet.sets:", name, SETS)


class Frechet(Metric):
    """Fréchet and kernel distances from real data, precision, recall, density and coverage.

    Features are computed while samples are in memory. Samples that are not finite are left out.
    """

    Options = FrechetOptions
    space: FeatureSpace | None = None

    def __init__(self, options: FrechetOptions, scene: Scene):
        """Find the feature space; request samples of the modalities that it supports."""
        super().__init__(options, scene)
        self.judged: list[str] = []
        self.features: dict[tuple[Ask, str], list[np.ndarray]] = {}
        self.reasons = {"inception/fid": f"{NOT_ASKED}: evaluation.metrics.frechet.num_examples is 0"}
        if options.num_examples:
            self.space, self.reasons = scene.tools.space(options.space, options.modalities)
        if self.space is not None:
            self.judged = self.space.judged(scene.modalities, options.modalities)
            self.real = scene.real(options.num_real)
            if options.reference == "train":
                self.real = self._of_train(scene.train, options.num_examples, options.num_real)
        targets = {GIVEN_REST: self.judged, TO_TARGET: options.targets}
        self.asks = tuple(
            ask
            for name in options.sets
            if name != RECONSTRUCTION
            for ask in observed_sets.asks(name, scene.modalities, targets.get(name, ()))
            if self._judged_in(ask)
        )

    @classmethod
    def check(cls, options: FrechetOptions, plan: Plan) -> None:
        """Check the names of modalities, and that enough samples are generated."""
        most = min(plan.num_examples, plan.num_unconditional) * (plan.num_repeats if options.all_repeats else 1)
        if options.num_examples > most:
            raise SbmError(
                f"evaluation.metrics.frechet.num_examples is {options.num_examples}, but no more than {most} samples "
                "per set are generated (evaluation.num_examples, evaluation.num_unconditional; times "
                "evaluation.num_repeats with all_repeats). Lower it, or raise these."
            )
        check_targets("frechet", options, plan.modalities)
        for name in options.modalities:
            if name not in plan.known:
                raise unknown("modality in config.evaluation.metrics.frechet.modalities:", name, plan.known)

    def _judged_in(self, ask: Ask) -> list[str]:
        """Return the modalities evaluated in an ask: the last one in `FIXED_ORDER`, and never a given one."""
        target = self.scene.modalities[-1] if ask.family == FIXED_ORDER else ask.target
        return [name for name in self.judged if target in ("", name) and name not in ask.given]

    def look(self, draw: Draw) -> None:
        """Collect the features of up to `num_examples` samples."""
        if draw.repeat and not self.options.all_repeats:
            return  # distances estimate their own error
        for name in self._judged_in(draw.ask):
            taken = self.features.setdefault((draw.ask, name), [])
            missing = self.options.num_examples - sum(map(len, taken))
            if missing > 0:
                taken.append(self._extract(name, draw.generated(name)[:missing]))

    def _extract(self, name: str, samples: np.ndarray) -> np.ndarray:
        """Return features [N, ..., D] of samples [N, *shape], NaN where a sample is not finite."""
        features = self.space.extract[name](samples)
        finite = finite_rows(samples).reshape(-1, *(1,) * (features.ndim - 1))
        return np.where(finite, features, np.nan)

    def result(self) -> Evaluation:
        """Return all distances, and their means over modalities."""
        if self.space is None:
            return Evaluation({}, self.reasons, {})
        fid = self.space.measure("frechet")
        if RECONSTRUCTION in self.options.sets and self.judged and self.scene.subject.reconstruct is not None:
            self._reconstruct()
        not_available = self.reasons | self._missing()
        found: Found = {}
        for (ask, name), parts in self.features.items():
            features = flat(np.concatenate(parts))
            features = features[np.isfinite(features).all(axis=1)]
            if len(features) < FEWEST:
                not_available[f"{fid}/{_label(ask)}/{name}"] = f"{len(features)} finite samples are too few"
                continue
            found[_label(ask), name] = self.space.compare(name, features, self.real[name])
            generated = sum(map(len, parts))
            if generated < self.options.num_examples:
                not_available[f"{fid}/{_label(ask)}/{name}/more_samples"] = (
                    f"{generated} rows have what is given, of {self.options.num_examples} asked for; fewer samples "
                    "have a larger distance"
                )
        infinity = self.space.measure("frechet_infinity")
        if found and not any(infinity in measures for measures in found.values()):
            not_available[infinity] = "wants more than two samples for each feature"
        return Evaluation(_metrics(found), not_available, {})

    def _missing(self) -> dict[str, str]:
        """Return why sets of samples and modalities are not compared, by name."""
        fid = self.space.measure("frechet")
        if not self.judged:
            return {fid: f"none of the chosen modalities has features in {self.space.name}"}
        there = {FROM_ONE if ask.given else ask.family for ask, _ in self.features}
        if len(self.scene.modalities) == 2 and GIVEN_REST in there:  # the same with two modalities
            there.add(FROM_ONE)
        missing = self.space.missing(self.scene.modalities, self.options.modalities)
        return {f"{fid}/{name}": reason for name, reason in missing.items()} | {
            f"{fid}/{family}": "no samples of it, or of a judged modality in it, were generated"
            if family in self.options.sets
            else f"{NOT_ASKED}: {family!r} is not in evaluation.metrics.frechet.sets"
            for family in SETS
            if family not in there
        }

    def of_real(self, train: Split) -> dict[str, Estimate]:
        """Return the distances of `num_examples` real training examples."""
        found: Found = {}
        for name in self.judged:
            chosen = _some(train, name)[: self.options.num_examples]
            if len(chosen) >= FEWEST:
                features = self.space.real(name, train.read([name], chosen)[name]).features
                found["real", name] = self.space.compare(name, features, self.real[name])
        return _metrics(found)

    def _of_train(self, train: Split, skipped: int, count: int) -> dict[str, np.ndarray]:
        """Return {modality: training rows} as real examples, distinct from the first `skipped`, used by `of_real`.

        Raises:
          SbmError: if too few rows are left.
        """
        chosen = {name: _some(train, name)[skipped : skipped + count if count else None] for name in self.judged}
        for name, rows in chosen.items():
            if len(rows) < FEWEST:
                raise SbmError(
                    f"evaluation.metrics.frechet.reference 'train': {len(rows)} rows with {name!r} are left beyond the "
                    f"{skipped} to compare with them; {FEWEST} are needed. Lower num_examples, or compare with "
                    "'held_out'."
                )
        return {name: train.read([name], rows)[name] for name, rows in chosen.items()}

    def _reconstruct(self) -> None:
        complete = self.scene.complete
        for start in range(0, min(self.options.num_examples, len(complete)), BATCH):
            rows = np.arange(start, min(start + BATCH, self.options.num_examples, len(complete)))
            images = {name: in_units(values) for name, values in complete.read(self.scene.modalities, rows).items()}
            decoded = self.scene.subject.reconstruct(images)
            for name in self.judged:
                taken = self.features.setdefault((Ask(RECONSTRUCTION), name), [])
                taken.append(self._extract(name, np.asarray(decoded[name])))


def _some(train: Split, name: str) -> np.ndarray:
    """Return the indices of the rows that have a modality, in a random but fixed order."""
    rows = np.arange(len(train)) if train.present is None else np.flatnonzero(train.present[name])
    return rows[np.random.default_rng(0).permutation(len(rows))]


def _label(ask: Ask) -> str:
    """Return the part of metric names that identifies the samples of an ask."""
    if ask.given:
        return f"from/{'+'.join(ask.given)}"
    return ask.family if ask.size is None else f"{ask.family}/given_{ask.size}"


def _metrics(found: Found) -> dict[str, Estimate]:
    """Return all distances, and their means over modalities, by full name."""
    metrics: dict[str, Estimate] = {}
    members: dict[str, list[str]] = {}
    for (label, modality), measures in found.items():
        for measure, value in measures.items():
            metrics[f"{measure}/{label}/{modality}"] = value
            members.setdefault(f"{measure}/{label}", []).append(f"{measure}/{label}/{modality}")
    return metrics | {name: average(metrics, names) for name, names in members.items()}
