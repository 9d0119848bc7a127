"""Evaluates a system: generates the samples that metrics request, passes them on, and collects the results."""

import collections
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager

import jax
import numpy as np

from sbm_jax.errors import SbmError, unknown
from sbm_jax.evaluation import generation, sample_grids
from sbm_jax.evaluation.batches import in_units, num_batches
from sbm_jax.evaluation.config import EvaluationConfig, check_data, check_metrics, check_size
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.evaluation.metrics import Draw, Evaluation, Metric, Scene, Subject, Tools
from sbm_jax.evaluation.metrics.base import NO_TOOLS
from sbm_jax.evaluation.observed_sets import position
from sbm_jax.types import Key, Split

# Number of batches -> context that yields a function to call with the number of batches just done.
ProgressFn = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def _no_progress(_total: int) -> AbstractContextManager[Callable[[int], None]]:
    return contextlib.nullcontext(lambda _count: None)


def evaluate(
    subject: Subject,
    test: Split,
    modalities: Sequence[str],
    key: Key,
    config: EvaluationConfig,
    tools: Tools = NO_TOOLS,
    progress: ProgressFn = _no_progress,
    train: Split | None = None,
    trained_on: Split | None = None,
) -> Evaluation:
    """Compute all metrics that the system and the data allow.

    The generator is always called with batches of `config.batch_size` rows, so it compiles once. Samples that several
    metrics request are generated once. Each estimate states the kind of its spread.

    A sample that is not finite counts as wrong wherever a classifier is used. Distance metrics leave it out, and their
    `n` is the number of samples measured. ``sampling/diverged`` counts such samples.

    Args:
      subject: the functions of the system.
      test: held-out rows. A row's missing modalities are neither given nor compared with; complete rows come first.
      modalities: names, in the column order of observed sets.
      key: a typed key. Equal keys give equal rows and observed sets for every system and, with equal configs, equal
        noise; another list of metrics gives different noise.
      config: see `EvaluationConfig`.
      tools: classifiers and features.
      progress: `number of batches -> context`, which yields a function that is called after each generated batch.
      train: training rows to compare samples with, for metrics that do so; None for no comparison.
      trained_on: the rows that the system was trained on, for metrics on training data; None for `train`.

    Raises:
      SbmError: if the split lacks a modality, has no complete row or fewer rows than `config.num_examples`, or a
        metric does not fit.
    """
    check_size(config, test)
    scene, repeats_key = _scene(subject, test, modalities, key, config, tools, train, trained_on)
    by_label = _metrics(config, scene)
    metrics = list(by_label.values())
    asks = sorted({ask for metric in metrics for ask in metric.asks}, key=lambda ask: position(ask, scene.modalities))
    shown = sample_grids.examples(scene.complete.labels, len(scene.complete), config.num_figure_examples)
    grids = sample_grids.Grids(shown, len(modalities))
    repeats = [
        {ask: generation.requests(ask, scene, repeat_key, config.num_unconditional) for ask in asks}
        for repeat_key in (jax.random.fold_in(repeats_key, repeat) for repeat in range(config.num_repeats))
    ]
    repeats[0] |= grids.requests
    sizes = (sum(len(part.rows) for part in wanted.values()) for wanted in repeats)
    with progress(sum(num_batches(size, config.batch_size) for size in sizes)) as advance:
        for repeat, wanted in enumerate(repeats):
            scene.costs.append([])
            noise = jax.random.fold_in(jax.random.fold_in(repeats_key, repeat), 0)
            if wanted:
                generation.run(scene, wanted, repeat, noise, lambda draw: _show(draw, metrics, grids), advance)
    found = _joined({label: metric.result() for label, metric in by_label.items()}, _prefixes(config))
    figures = found.figures | grids.figures(scene.examples.data)
    if subject.reconstruct is not None:
        figures |= _reconstruction_grid(scene, shown)
    return found._replace(figures=figures)


def real(
    train: Split, test: Split, modalities: Sequence[str], key: Key, config: EvaluationConfig, tools: Tools
) -> dict[str, Estimate]:
    """Return the metrics of real training rows evaluated in place of a system's samples.

    Args:
      train: training rows.
      test: held-out rows.
      modalities: names.
      key: as for `evaluate`.
      config: see `EvaluationConfig`.
      tools: classifiers and features.
    """
    scene, _ = _scene(Subject(), test, modalities, key, config, tools, train)
    found = {label: Evaluation(metric.of_real(train), {}, {}) for label, metric in _metrics(config, scene).items()}
    return _joined(found, _prefixes(config)).metrics


def _scene(
    subject: Subject,
    test: Split,
    modalities: Sequence[str],
    key: Key,
    config: EvaluationConfig,
    tools: Tools,
    train: Split | None = None,
    trained_on: Split | None = None,
) -> tuple[Scene, Key]:
    """Return the scene that metrics use, and the key of the repeats."""
    for name in modalities:
        if name not in test.data:
            raise unknown("modality", name, test.data)
    check_metrics(config, modalities, list(test.data))
    check_data(config, test)
    rows_key, repeats_key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(rows_key, len(test)))
    complete = test.having(modalities)[order]
    if not complete.any():
        raise SbmError(f"no row of the split has all of {', '.join(modalities)}; expected at least one. Add some.")
    order = np.concatenate([order[complete], order[~complete]])
    examples = test.take(order[: config.num_examples])

    def own_key(number: int) -> Key:
        return jax.random.fold_in(repeats_key, config.num_repeats + number)

    names = tuple(modalities)
    rows = {"train": train, "trained_on": train if trained_on is None else trained_on}
    scene = Scene(subject, tools, names, test, order, examples, config.batch_size, own_key, **rows)
    return scene, repeats_key


def _metrics(config: EvaluationConfig, scene: Scene) -> dict[str, Metric]:
    return {label: cls(options, scene) for label, cls, options in config.chosen()}


def _prefixes(config: EvaluationConfig) -> dict[str, str]:
    """Return the prefix of each entry's metric names: its label if it is renamed and shares its class, else none."""
    classes = {label: cls for label, cls, _ in config.chosen()}
    count = collections.Counter(classes.values())
    renamed = {label for label in classes if config.metrics[label].get("name", label) != label}
    return {label: f"{label}/" if label in renamed and count[cls] > 1 else "" for label, cls in classes.items()}


def _show(draw: Draw, metrics: Collection[Metric], grids: sample_grids.Grids) -> None:
    """Pass a draw to the sample grids and the metrics that requested it."""
    if draw.ask in grids.requests:
        grids.look(draw)
    for metric in metrics:
        if draw.ask in metric.asks:
            metric.look(draw)


def _joined(parts: Mapping[str, Evaluation], prefixes: Mapping[str, str]) -> Evaluation:
    """Merge the evaluations of all metrics, given by label.

    Raises:
      SbmError: if a metric did not return an evaluation, or two metrics share a name.
    """
    joined, owners = Evaluation({}, {}, {}), {}
    for label, part in parts.items():
        where = f"config.evaluation.metrics.{label}"
        if not isinstance(part, Evaluation) or not all(isinstance(e, Estimate) for e in part.metrics.values()):
            raise SbmError(f"{where} returned {part!r:.200}; expected an Evaluation, with an Estimate under each name.")
        for field, joined_values, own in zip(Evaluation._fields, joined, part, strict=True):
            for name, value in own.items():
                name = prefixes[label] + name
                owner = owners.setdefault((field, name), label)
                if owner != label:
                    raise SbmError(f"{where} and .{owner} both have {name!r}. Leave one out, or rename it.")
                joined_values[name] = value
    return joined


def _reconstruction_grid(scene: Scene, shown: np.ndarray) -> dict[str, np.ndarray]:
    shown, names = shown[: scene.batch_size], scene.modalities
    rows = np.resize(shown, scene.batch_size)
    batch = {name: in_units(scene.examples.data[name][rows]) for name in names}
    reconstructed = scene.subject.reconstruct(batch)
    return sample_grids.reconstructions(
        {name: batch[name][: len(shown)] for name in names},
        {name: np.asarray(reconstructed[name])[: len(shown)] for name in names},
    )
