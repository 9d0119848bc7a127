"""Judge a system: coherence, mode coverage, reconstruction, and the cost of sampling."""

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation import coherence, coverage, diversity, likelihood, observed_sets, reconstruction, sample_grids
from sbm_jax.evaluation.distances import Distances
from sbm_jax.evaluation.estimates import BATCHES, CALLS, Estimate, estimate
from sbm_jax.evaluation.features import FeatureConfig, FeatureSpace
from sbm_jax.evaluation.generation import (
    Call,
    ClassifierFn,
    EncodeFn,
    GenerateFn,
    Outcome,
    ProgressFn,
    ReconstructFn,
    Requests,
    as_float,
    batches,
    classify,
    num_batches,
    run,
)
from sbm_jax.evaluation.latents import Cosines
from sbm_jax.evaluation.likelihood import LikelihoodConfig
from sbm_jax.evaluation.observed_sets import (
    DIVERSITY,
    FIXED_ORDER,
    GIVEN_REST,
    RANDOM,
    TO_TARGET,
    UNCONDITIONAL,
    Group,
)
from sbm_jax.types import Key, Split

# Each family of observed sets, and the metrics that are measured on it.
SETS = {
    GIVEN_REST: ("coherence/given_rest",),
    RANDOM: ("coherence/given_k",),
    FIXED_ORDER: ("coherence/fixed_order/given_k",),
    TO_TARGET: ("coherence/to_target/given_k",),
    UNCONDITIONAL: ("coherence/unconditional_k", "coherence/unconditional_majority_k", "coverage"),
    DIVERSITY: (diversity.METRIC,),
}

NOTHING_GIVEN = Group(UNCONDITIONAL)


@checked_dataclass
class EvaluationConfig:
    """How much is generated, and for which observed sets.

    Attributes:
      num_examples: rows of the split that are conditioned on, the same in every repeat.
      num_unconditional: joint samples per repeat.
      batch_size: rows per compiled call.
      num_repeats: how often everything is generated anew, with other noise and other random sets.
      num_figure_examples: rows shown in the sample grids.
      sets: the families of observed sets, keys of `SETS`.
      targets: the modalities that the family ``"to_target"`` generates, each from one, two, ... others in their order;
        () for the first modality.
      features: what is compared with real data by the features of a network.
      likelihood: how well bounds of the likelihood are estimated, of systems that have one.
    """

    num_examples: int = 1000
    num_unconditional: int = 1000
    batch_size: int = 256
    num_repeats: int = 3
    num_figure_examples: int = 4
    sets: tuple[str, ...] = tuple(SETS)
    targets: tuple[str, ...] = ()
    features: FeatureConfig = FeatureConfig(num_examples=0)
    likelihood: LikelihoodConfig = LikelihoodConfig()

    def __post_init__(self):
        for name in ("num_examples", "num_unconditional", "batch_size", "num_repeats", "num_figure_examples"):
            if getattr(self, name) < 1:
                raise SbmError(f"evaluation.{name} must be at least 1, not {getattr(self, name)}.")
        for name in self.sets:
            if name not in SETS:
                raise unknown("family of observed sets in evaluation.sets:", name, SETS)
        most = min(self.num_examples, self.num_unconditional)
        if self.likelihood.num_examples > self.num_examples:
            raise SbmError(
                f"evaluation.likelihood.num_examples is {self.likelihood.num_examples}, but evaluation.num_examples "
                f"is {self.num_examples}; it can not be more."
            )
        if self.features.num_examples > most:
            raise SbmError(
                f"evaluation.features.num_examples is {self.features.num_examples}, but no more than {most} samples "
                "of a kind are generated (evaluation.num_examples, evaluation.num_unconditional)."
            )


class Evaluation(NamedTuple):
    """What was measured.

    Attributes:
      metrics: estimates by flat name, such as ``coherence/given_rest``.
      not_available: why a metric is missing, by its name.
      figures: arrays for the report: sample grids (see `sample_grids`), and ``coverage`` [M, num_classes].
    """

    metrics: dict[str, Estimate]
    not_available: dict[str, str]
    figures: dict[str, np.ndarray]


def _no_progress(_total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    return contextlib.nullcontext(lambda _count: None)


def evaluate(
    generate_fn: GenerateFn,
    split: Split,
    modalities: Sequence[str],
    key: Key,
    config: EvaluationConfig,
    *,
    classifier_fn: ClassifierFn | None = None,
    num_classes: int | None = None,
    reconstruct_fn: ReconstructFn | None = None,
    encode_fn: EncodeFn | None = None,
    weights_fn: likelihood.WeightsFn | None = None,
    costly_weights: bool = False,
    space: FeatureSpace | None = None,
    progress: ProgressFn = _no_progress,
) -> Evaluation:
    """Measure everything that the system and the data allow.

    All functions are called with batches of `config.batch_size` rows only, so each compiles once. Each estimate says
    what its spread is.

    A sample that is not finite is wrong in all that the classifier sees. It is left out of distances, cosines,
    diversity and reconstruction errors, whose `n` is the number of what was measured. ``sampling/diverged`` counts it.

    Args:
      generate_fn: `(key, data, observed [B, M], num_samples) -> Generated`, compiled.
      split: held-out rows.
      modalities: the names in the order of the columns of observed sets.
      key: a typed key; equal keys give equal rows, observed sets and noise, for every system.
      config: see `EvaluationConfig`.
      classifier_fn: `{modality: [B, *shape]} -> {modality: int [B]}`, or None: no coherence is measured.
      num_classes: the number of classes; needed with a classifier.
      reconstruct_fn: `{modality: [B, *shape]} -> ` the same, or None where a system has no autoencoder.
      encode_fn: `{modality: [B, *shape]} -> {modality: [B, D_m]}` in the units of generated latents, or None.
      weights_fn: see `likelihood.bounds`, or None where a system has no likelihood.
      costly_weights: whether one sample of the weights is all that can be afforded.
      space: the features in which samples are compared with real data, or None.
      progress: `number of batches -> context`, which yields a function that is told of each batch done.

    Raises:
      SbmError: when the split lacks a modality or has fewer rows than asked for.
    """
    data = _checked_data(split, modalities, config)
    order, repeats_key = _rows(key, split)
    rows = order[: config.num_examples]
    shown = sample_grids.examples(rows, split.labels, config.num_figure_examples)
    reference = diversity.within_class_distances(data, split.labels, rows) if split.labels is not None else {}
    not_available = _missing_sets(config, split, reference, len(modalities), classifier_fn, num_classes)
    cosines = Cosines(encode_fn)
    distances = Distances(space, config.features, data, order)
    watched = cosines.families | distances.families
    families = _families(config, not_available, len(modalities), watched)
    requests = [
        _requests(jax.random.fold_in(repeats_key, repeat), rows, modalities, config, families)
        for repeat in range(config.num_repeats)
    ]
    drawn = sample_grids.requests(shown, len(modalities))
    requests[0] |= drawn
    sizes = [len(rows), *(sum(len(group.rows) for group in groups.values()) for groups in requests)]
    total = sum(num_batches(size, config.batch_size) for size in sizes)

    outcomes = []
    with progress(total) as advance:
        for repeat, groups in enumerate(requests):
            noise = jax.random.fold_in(jax.random.fold_in(repeats_key, repeat), 0)
            keep = {*drawn, diversity.GIVEN_ONE}
            # Distances need many samples, and have an error of their own: those of the first repeat will do.
            watch = [functools.partial(cosines.look, repeat), *([distances.look] if repeat == 0 else [])]
            outcomes.append(
                run(generate_fn, classifier_fn, data, groups, noise, config.batch_size, advance, keep, watch)
            )
        autoencoders = _autoencoders(
            data, split.labels, rows, classifier_fn, reconstruct_fn, config.batch_size, advance
        )
    metrics, missing, figures = _coherence(outcomes, requests, split, modalities, num_classes)
    not_available |= missing
    figures |= sample_grids.grids(outcomes[0].data, data, shown)
    sampling = _sampling([outcome.calls for outcome in outcomes])
    metrics["sampling/samples_per_second"] = _speed(
        generate_fn, data, jax.random.fold_in(repeats_key, config.num_repeats), config.batch_size
    )
    diversities = _diversity(outcomes, requests, reference)
    bounds_key = jax.random.fold_in(repeats_key, config.num_repeats + 1)
    bounds = _likelihood(weights_fn, costly_weights, data, rows, bounds_key, config.likelihood)
    measured = (sampling[:2], autoencoders[:2], diversities[:2], cosines.measured(), distances.measured(reconstruct_fn))
    for found, missing in (*measured, bounds):
        metrics |= found
        not_available |= missing
    if reconstruct_fn is not None:
        figures |= _reconstruction_grid(data, shown, reconstruct_fn, config.batch_size)
    return Evaluation(metrics, not_available, figures)


def _rows(key: Key, split: Split) -> tuple[np.ndarray, Key]:
    """Return all rows in the order in which they are conditioned on, and a key for everything else."""
    rows_key, rest = jax.random.split(key)
    return np.asarray(jax.random.permutation(rows_key, len(split))), rest


def real_distances(
    space: FeatureSpace | None, config: EvaluationConfig, train: Split, test: Split, key: Key
) -> dict[str, Estimate]:
    """Return the distances of real training from the real test data that samples are compared with.

    Args:
      space: the features to compare in; None gives no distances.
      config: see `EvaluationConfig`.
      train: `config.features.num_examples` of its rows, drawn at random, are compared.
      test: held-out rows.
      key: as given to `evaluate`.
    """
    if space is None:
        return {}
    order, _ = _rows(key, test)
    distances = Distances(space, config.features, {name: test.data[name] for name in train.data}, order)
    return distances.of_real(train.data)


def _coherence(
    outcomes: Sequence[Outcome],
    requests: Sequence[Mapping[Group, Requests]],
    split: Split,
    modalities: Sequence[str],
    num_classes: int | None,
) -> Evaluation:
    """Return the estimates of all metrics of what the classifier sees, over the repeats."""
    per_repeat = [
        _row_outcomes(outcome.predicted, groups, split.labels, modalities)
        for outcome, groups in zip(outcomes, requests, strict=True)
    ]
    metrics = {name: estimate([repeat[name] for repeat in per_repeat]) for name in per_repeat[0]}
    if num_classes is None or NOTHING_GIVEN not in outcomes[0].predicted:
        return Evaluation(metrics, {}, {})
    joint = [outcome.predicted[NOTHING_GIVEN] for outcome in outcomes]
    found, missing = coverage.measure(joint, num_classes, split.labels)
    figures = {"coverage": coherence.mode_coverage(np.concatenate(joint), num_classes)}
    return Evaluation(metrics | found, missing, figures)


def _diversity(
    outcomes: Sequence[Outcome],
    requests: Sequence[Mapping[Group, Requests]],
    reference: Mapping[str, float],
) -> Evaluation:
    """Return how much samples for the same condition differ, in units of real examples of one class."""
    if diversity.GIVEN_ONE not in requests[0]:
        return Evaluation({}, {}, {})
    missing = {
        f"{diversity.METRIC}/{name}": "left out of the mean: real examples of one class do not differ in it"
        for name, distance in reference.items()
        if not distance
    }
    repeats = [
        diversity.relative_distances(outcome.data[diversity.GIVEN_ONE], groups[diversity.GIVEN_ONE].observed, reference)
        for outcome, groups in zip(outcomes, requests, strict=True)
    ]
    finite = [values[np.isfinite(values)] for values in repeats]
    if not any(map(len, finite)):
        return Evaluation({}, missing | {diversity.METRIC: "no pair of samples is finite"}, {})
    return Evaluation({diversity.METRIC: estimate(finite)}, missing, {})


def _likelihood(
    weights_fn: likelihood.WeightsFn | None,
    costly: bool,
    data: Mapping[str, np.ndarray],
    rows: np.ndarray,
    key: Key,
    config: LikelihoodConfig,
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return the bounds of the likelihood, and why some are missing."""
    if weights_fn is None:
        return {}, {likelihood.MEASURES[0]: "the system has none"}
    if not config.num_examples:
        return {}, {likelihood.MEASURES[0]: "not asked for: evaluation.likelihood.num_examples is 0"}
    return likelihood.bounds(weights_fn, costly, data, rows, key, config)


def _checked_data(split: Split, modalities: Sequence[str], config: EvaluationConfig) -> dict[str, np.ndarray]:
    for name in modalities:
        if name not in split.data:
            raise unknown("modality", name, split.data)
    check_targets(config, modalities)
    check_size(config, split)
    return {name: split.data[name] for name in modalities}


def check_targets(config: EvaluationConfig, modalities: Sequence[str]) -> None:
    """Check that the targets are among the modalities, where they matter.

    Raises:
      SbmError: if one is not.
    """
    for name in config.targets if "to_target" in config.sets else ():
        if name not in modalities:
            raise unknown("modality in config.evaluation.targets:", name, modalities)


def check_size(config: EvaluationConfig, split: Split) -> None:
    """Check that the split has as many rows as are asked for.

    Raises:
      SbmError: if it has fewer.
    """
    if config.num_examples > len(split):
        raise SbmError(
            f"evaluation.num_examples is {config.num_examples}, but the split has {len(split)} rows; "
            f"set it to {len(split)} or less."
        )


def _missing_sets(
    config: EvaluationConfig,
    split: Split,
    reference: Mapping[str, float],
    num_modalities: int,
    classifier_fn: ClassifierFn | None,
    num_classes: int | None,
) -> dict[str, str]:
    """Return why the metrics of some families of observed sets can not be measured, by metric."""
    missing = {}
    for name, metrics in SETS.items():
        conditional = name != UNCONDITIONAL
        reason = None
        if name not in config.sets:
            reason = f"not asked for: {name!r} is not in evaluation.sets"
        elif classifier_fn is None and name != DIVERSITY:
            reason = "there is no classifier that tells which class a sample shows"
        elif conditional and split.labels is None:
            reason = "the data have no labels"
        elif conditional and num_modalities < 2:
            reason = "there is one modality only, so none can be given"
        elif name == DIVERSITY and not any(reference.values()):
            reason = "no two of the real examples have the same label and differ"
        if reason:
            missing |= dict.fromkeys(metrics, reason)
    if num_classes is None:
        missing.setdefault("coverage", "the number of classes is not known")
    return missing


def _families(
    config: EvaluationConfig, not_available: Mapping[str, str], num_modalities: int, watched: Collection[str]
) -> set[str]:
    """Return the families of observed sets to generate: those that some metric needs.

    Distances from real data and latents need neither labels nor a classifier. Joint samples are generated even where
    nothing judges them: they measure the speed.

    Args:
      config: see `EvaluationConfig`.
      not_available: the metrics of what a classifier sees, and of diversity, that can not be measured.
      num_modalities: M.
      watched: families that something else looks at.
    """
    needed = {name for name in config.sets if name in watched or any(m not in not_available for m in SETS[name])}
    return {name for name in needed if num_modalities > 1} | {UNCONDITIONAL}.intersection(config.sets)


def _requests(
    key: Key, rows: np.ndarray, modalities: Sequence[str], config: EvaluationConfig, families: Collection[str]
) -> dict[Group, Requests]:
    """Return the requests of one repeat, by what they are for."""
    num_modalities = len(modalities)

    def fixed(mask: np.ndarray) -> Requests:
        return Requests(rows, np.tile(mask, (len(rows), 1)))

    groups = {}
    if GIVEN_REST in families:
        for target, name in enumerate(modalities):
            groups[Group(GIVEN_REST, target=name)] = fixed(observed_sets.given_rest(target, num_modalities))
    for size in range(1, num_modalities):
        if RANDOM in families:
            size_key = jax.random.fold_in(key, size)
            masks = observed_sets.random_of_size(size_key, len(rows), size, num_modalities)
            groups[Group(RANDOM, size)] = Requests(rows, masks)
        if FIXED_ORDER in families:
            groups[Group(FIXED_ORDER, size)] = fixed(observed_sets.first(size, num_modalities))
        if TO_TARGET in families:
            for name in config.targets or modalities[:1]:
                mask = observed_sets.first_others(size, list(modalities).index(name), num_modalities)
                groups[Group(TO_TARGET, size, name)] = fixed(mask)
    if DIVERSITY in families:
        masks = observed_sets.random_of_size(jax.random.fold_in(key, num_modalities), len(rows), 1, num_modalities)
        groups[diversity.GIVEN_ONE] = diversity.requests(rows, masks)
    nothing = np.zeros((config.num_unconditional, num_modalities), bool)
    unconditional = Requests(np.repeat(rows[:1], config.num_unconditional), nothing)
    if UNCONDITIONAL in families:
        groups[NOTHING_GIVEN] = unconditional
    return groups or {Group("speed"): unconditional}


NAMES = {
    GIVEN_REST: "coherence/given_rest/{target}",
    RANDOM: "coherence/given_{size}",
    FIXED_ORDER: "coherence/fixed_order/given_{size}",
    TO_TARGET: "coherence/to_target/given_{size}/{target}",
}
"""The metric that the samples of a group serve, by family."""


def _row_outcomes(
    predicted: Mapping[Group, np.ndarray],
    requests: Mapping[Group, Requests],
    labels: np.ndarray | None,
    modalities: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the outcome of each row in one repeat, by metric: their means are the metrics."""
    outcomes, rest = {}, []
    for group, classes in predicted.items():
        if group == NOTHING_GIVEN:
            outcomes |= _unconditional_outcomes(classes)
        if labels is None or group.family not in NAMES:
            continue
        name = NAMES[group.family].format(size=group.size, target=group.target)
        truth = labels[requests[group].rows]
        if group.target:
            outcomes[name] = classes[:, list(modalities).index(group.target)] == truth
        else:
            outcomes[name] = coherence.conditional(classes, truth, requests[group].observed)
        if group.family == GIVEN_REST:
            rest.append(outcomes[name])
        if group.family == FIXED_ORDER:
            outcomes[f"{name}/last"] = classes[:, -1] == truth
    return outcomes | ({"coherence/given_rest": np.concatenate(rest)} if rest else {})


def _unconditional_outcomes(predicted: np.ndarray) -> dict[str, np.ndarray]:
    num_modalities = predicted.shape[1]
    outcomes = {}
    for prefix, rule in (("unconditional", "first"), ("unconditional_majority", "majority")):
        count = coherence.agreement(predicted, rule)
        outcomes |= {f"coherence/{prefix}_{k}": count >= k for k in range(2, num_modalities + 1)}
    if num_modalities > 1:
        outcomes["coherence/unconditional_all"] = outcomes[f"coherence/unconditional_{num_modalities}"]
    return outcomes


NUM_TIMED = 3


def _speed(generate_fn: GenerateFn, data: Mapping[str, np.ndarray], key: Key, batch_size: int) -> Estimate:
    """Return how many joint samples are generated per second with nothing given, after a call that may compile."""
    batch = {name: as_float(np.resize(values, (batch_size, *values.shape[1:]))) for name, values in data.items()}
    nothing = np.zeros((batch_size, len(data)), bool)
    jax.block_until_ready(generate_fn(key, batch, nothing, 1))
    rates = []
    for index in range(NUM_TIMED):
        start = time.perf_counter()
        jax.block_until_ready(generate_fn(jax.random.fold_in(key, index), batch, nothing, 1))
        rates.append(batch_size / (time.perf_counter() - start))
    return estimate([[rate] for rate in rates], CALLS)._replace(n=NUM_TIMED * batch_size)


def _sampling(repeats: Sequence[Sequence[Call]]) -> Evaluation:
    """Return the network evaluations of a sample, and how often sampling failed."""
    metrics, not_available = {}, {}
    if all("network_evaluations" in call.info for calls in repeats for call in calls):
        groups = [
            np.repeat([c.info["network_evaluations"] for c in calls], [c.num_rows for c in calls]) for calls in repeats
        ]
        metrics["sampling/network_evaluations"] = estimate(groups)
    else:
        not_available["sampling/network_evaluations"] = "the system does not report it"
    if all("diverged" in call.info for calls in repeats for call in calls):
        groups = [np.concatenate([_failures(call) for call in calls]) for calls in repeats]
        metrics["sampling/diverged"] = estimate(groups)
    else:
        not_available["sampling/diverged"] = "the system does not report it"
    return Evaluation(metrics, not_available, {})


def _failures(call: Call) -> np.ndarray:
    """Return one entry per row of the call, 1 for as many as diverged."""
    return np.arange(call.num_rows) < call.info["diverged"]


def _autoencoders(
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    rows: np.ndarray,
    classifier_fn: ClassifierFn | None,
    reconstruct_fn: ReconstructFn | None,
    batch_size: int,
    advance: Callable[[int], None],
) -> Evaluation:
    """Judge the classifier on true data, and the autoencoders by their error and by the classifier."""
    groups: dict[str, list[np.ndarray]] = {}
    judged = classifier_fn is not None and labels is not None
    for indices, count in batches(len(rows), batch_size):
        chosen = rows[indices]
        batch = {name: as_float(values[chosen]) for name, values in data.items()}
        outcomes = {}
        if judged:
            right = classify(classifier_fn, batch, tuple(data)) == labels[chosen][:, None]
            outcomes["classifier/accuracy"] = right
            outcomes |= {f"classifier/accuracy/{name}": right[:, m] for m, name in enumerate(data)}
        if reconstruct_fn is not None:
            reconstructed = reconstruct_fn(batch)
            errors = reconstruction.squared_error(batch, reconstructed)
            outcomes |= {f"reconstruction/mse/{name}": error for name, error in errors.items()}
            if judged:
                right = classify(classifier_fn, reconstructed, tuple(data)) == labels[chosen][:, None]
                outcomes |= {f"classifier/reconstruction/{name}": right[:, m] for m, name in enumerate(data)}
        for name, values in outcomes.items():
            own = values[:count].reshape(-1)
            groups.setdefault(name, []).append(own[np.isfinite(own)])
        advance(1)
    lost = [name for name, parts in groups.items() if not any(map(len, parts))]
    not_available = dict.fromkeys(lost, "no reconstruction is finite")
    if not judged:
        not_available["classifier/accuracy"] = "there is no classifier, or the data have no labels"
    if reconstruct_fn is None:
        not_available["reconstruction/mse"] = "the system has no autoencoders"
    return Evaluation(
        {name: estimate(parts, BATCHES) for name, parts in groups.items() if name not in lost}, not_available, {}
    )


def _reconstruction_grid(
    data: Mapping[str, np.ndarray], shown: np.ndarray, reconstruct_fn: ReconstructFn, batch_size: int
) -> dict[str, np.ndarray]:
    shown = shown[:batch_size]
    batch = {name: as_float(values[np.resize(shown, batch_size)]) for name, values in data.items()}
    reconstructed = reconstruct_fn(batch)
    return sample_grids.reconstructions(
        {name: batch[name][: len(shown)] for name in data},
        {name: np.asarray(reconstructed[name])[: len(shown)] for name in data},
    )
