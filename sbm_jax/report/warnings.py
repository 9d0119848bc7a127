"""Warnings about a run, found in its numbers: lossy codecs, networks that memorise or learn nothing, weak judges.

Each warning is one paragraph that says what was seen, what it means, and what to do. The thresholds are loose, so that
a sound run gets no warnings; a run without warnings may still have faults.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sbm_jax.report.summary import Metrics, chance, number

Records = Sequence[Mapping[str, Any]]  # of one stage: {"step", "split", "loss", ...}

NO_ENTRY = 0.1
"""KL in nats below which a latent carries no information: about a seventh of a bit."""

HOPELESS_ERROR = 0.9
"""Reconstruction error over the data's variance; predicting the mean gives 1."""

FEW_ENTRIES, LARGE_ERROR = 1 / 3, 0.5
"""Data with few degrees of freedom need few entries of a large latent; few are a fault only with an error this
large."""

LOST_READING = 0.5
"""Fraction of the classifier's above-chance accuracy on real data that reconstructions must retain. A codec that blurs
its data has about 0.75, and a system with it still works; collapsed ones have about 0.2."""

MEMORISED_ERROR, LEAST_DIFFERENCE = 2.0, 0.05
"""The ratio of held-out to training error, and their difference in units of the data's variance, below which the
held-out error counts as normal. Well-trained codecs have a ratio of 1.0 to 1.3."""

RISEN, WIDENED = 0.2, 0.5
"""How far held-out losses may rise from their minimum, and how far the gap to training losses may grow after the first
validation, in units of how much the training loss fell. The gap itself says nothing: losses of score models are mostly
noise, which is drawn once for all validations, and validated parameters may be averages. Sound runs, with 900 to 3,000
steps, have risen by up to 0.02 and widened by up to 0.32. A score model trained on 70 rows widens by 0.6, and its codec
rises by 2.9."""

FEWEST_JUDGED = 50
"""Rows from which a classifier's accuracy is known to about 0.1."""

WEAK_JUDGE = 0.7
"""The above-chance accuracy that the classifier should reach on real data, as a fraction of the maximum."""

UNTRAINED = 0.1
"""The above-chance coherence that a system should reach, as a fraction of the maximum."""


def find_warnings(metrics: Metrics, curves: Mapping[str, Records]) -> list[str]:
    """Return the warnings about one system, a paragraph each; [] for none.

    Args:
      metrics: the system's ``"metrics"`` of ``results.json``.
      curves: {stage: records logged during its training} of the stages that the system uses.
    """
    found = [*_collapsed(metrics), *_memorised(metrics), *_weak_judges(metrics)]
    if not found:  # each of these is a cause of it
        found = list(_incoherent(metrics))
    return [*found, *(text for stage, records in curves.items() for text in _overfitted(stage, records))]


def by_system(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return {warning: systems that have it}; systems that share codecs share their warnings.

    Args:
      systems: ``"systems"`` of ``results.json``.
    """
    found: dict[str, list[str]] = {}
    for name, system in systems.items():
        for text in system.get("warnings") or ():
            found.setdefault(text, []).append(name)
    return found


# MARK: Codecs


def _collapsed(metrics: Metrics) -> Iterator[str]:
    for name in _modalities(metrics, "codecs/entries_in_use/"):
        used, kl = metrics[f"codecs/entries_in_use/{name}"], _value(metrics, f"codecs/kl/{name}")
        error = _value(metrics, f"codecs/error_over_variance/{name}")
        # Samples of a diffusion decoder say nothing about the codec whose errors are measured.
        readings = () if "sampling/decoder_evaluations" in metrics else _readings(metrics, name)
        read = [reading for reading in readings if _is_lost(*reading[1:])]
        few = used["value"] < FEW_ENTRIES * used["n"] and error is not None and error > LARGE_ERROR
        nothing = used["value"] == 0 or (kl is not None and kl < NO_ENTRY)
        if not (read or few or nothing or (error is not None and error > HOPELESS_ERROR)):
            continue
        seen = [f"{used['value']:.0f} of {used['n']} entries of its latent are in use"]
        seen[0] += f" ({number(kl)} nats)" if kl is not None else ""
        if error is not None:
            seen.append(f"the error of its reconstructions is {number(error)} of the data's variance")
        seen += [
            f"the classifier{_of(q)} is correct on {a:.0%} of them, and on {b:.0%} of real data" for q, a, b, _ in read
        ]
        weight = "lower its codec.beta, leave its scale to be learned (None)" if kl is not None else "lower rae_beta"
        yield (
            f"The codec of {name!r} loses the data: {'; '.join(seen)}. Its samples cannot show what its latents do "
            f"not tell, and little can be generated from them. To fix it, {weight}, or train it longer or with larger "
            "networks."
        )


def _memorised(metrics: Metrics) -> Iterator[str]:
    for name in _modalities(metrics, "codecs/train_error_over_variance/"):
        trained = metrics[f"codecs/train_error_over_variance/{name}"]["value"]
        error = _value(metrics, f"codecs/error_over_variance/{name}")
        if None in (trained, error) or error < MEMORISED_ERROR * trained or error - trained < LEAST_DIFFERENCE:
            continue
        yield (
            f"The codec of {name!r} has memorised its training rows: the error of reconstructions is {number(error)} "
            f"of the variance of held-out data, and {number(trained)} of that of training rows. Latents of new data "
            "tell little of them. Train on more rows, for fewer steps, with smaller networks or more regularisation; "
            "make sure that all splits are of one kind."
        )


def _is_lost(shown: float, real: float, guessed: float) -> bool:
    """Return whether reconstructions lose what the classifier recognises in real data, if it does so well enough."""
    return not _is_weak(real, guessed) and shown - guessed < LOST_READING * (real - guessed)


def _readings(metrics: Metrics, name: str) -> Iterator[tuple[str, float, float, float]]:
    """Yield (question, accuracy on reconstructions, on real data, chance) of each classifier of a modality."""
    for metric in metrics:
        match = re.fullmatch(rf"classifier/(?:([^/]+)/)?reconstruction/{re.escape(name)}", metric)
        real = match and metric.replace("/reconstruction/", "/accuracy/")
        if match and real in metrics:
            values = _value(metrics, metric), _value(metrics, real)
            if None not in values:
                yield match[1] or "", *values, chance(metric, metrics) or 0.0


# MARK: Judges


def _weak_judges(metrics: Metrics) -> Iterator[str]:
    weak: dict[str, list[str]] = {}
    for metric in metrics:
        match = re.fullmatch(r"classifier/(?:([^/]+)/)?accuracy/([^/]+)", metric)
        value, guessed = _value(metrics, metric), chance(metric, metrics) or 0.0
        if match and value is not None and metrics[metric]["n"] >= FEWEST_JUDGED and _is_weak(value, guessed):
            weak.setdefault(match[1] or "", []).append(f"{value:.2f} of {match[2]!r} (chance: {number(guessed)})")
    for question, found in weak.items():
        yield (
            f"The classifier{_of(question)} has these accuracies on real data: {', '.join(found)}. Coherence of "
            "these modalities measures the judge's mistakes as well as the system's. If they show what is asked, train "
            "the classifier longer or with larger networks; if they do not, leave their coherence aside."
        )


def _is_weak(accuracy: float, guessed: float) -> bool:
    """Return whether a classifier is too weak on real data, compared with guessing."""
    return accuracy - guessed < WEAK_JUDGE * (1 - guessed)


# MARK: Training


def _incoherent(metrics: Metrics) -> Iterator[str]:
    metric = "coherence/given_rest"
    value, guessed = _value(metrics, metric), chance(metric, metrics)
    if value is None or guessed is None or metrics[metric]["n"] < FEWEST_JUDGED:
        return
    if value - guessed < UNTRAINED * (1 - guessed):
        yield (
            f"Samples show the class of the given modalities in {number(value)} of cases; guessing gives "
            f"{number(guessed)}. The system has hardly learned what its modalities share: train it for longer before "
            "you compare it with others."
        )


def _overfitted(stage: str, records: Records) -> Iterator[str]:
    trained = [(r["step"], r["loss"]) for r in records if r.get("split", "train") == "train" and "loss" in r]
    held_out = [(r["step"], r["loss"]) for r in records if r.get("split") == "validation" and "loss" in r]
    if len(trained) < 10 or len(held_out) < 3:
        return
    end = _near(trained, trained[-1][0])
    gained = statistics.median(loss for _, loss in trained[: len(trained) // 10]) - end
    (first_step, first), (_, last) = held_out[0], held_out[-1]
    lowest_step, lowest = min(held_out, key=lambda pair: pair[1])
    widened = (last - end) - (first - _near(trained, first_step))
    if gained <= 0 or last <= end or not (last - lowest > RISEN * gained or widened > WIDENED * gained):
        return
    yield (
        f"Stage {stage!r} begins to memorise its training rows: its held-out loss was {number(lowest)} at step "
        f"{lowest_step:,} and is {number(last)} at the end, where its training loss is {number(end)}. What it "
        "learns of these rows no longer helps with others. Train on more rows, for fewer steps, or with a smaller "
        "network."
    )


def _near(rows: Sequence[tuple[int, float]], step: int) -> float:
    """Return the mean loss around a step, over a tenth of all records."""
    half = max(1, len(rows) // 20)
    middle = min(range(len(rows)), key=lambda index: abs(rows[index][0] - step))
    return statistics.mean(loss for _, loss in rows[max(0, middle - half) : middle + half + 1])


# MARK: Names


def _modalities(metrics: Iterable[str], prefix: str) -> list[str]:
    return [metric.removeprefix(prefix) for metric in metrics if metric.startswith(prefix)]


def _value(metrics: Metrics, metric: str) -> float | None:
    """Return the value of a metric, or None if it is missing or not finite."""
    return metrics[metric]["value"] if metric in metrics else None


def _of(question: str) -> str:
    return f" of {question!r}" if question else ""
