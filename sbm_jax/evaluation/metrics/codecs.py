"""Quality of the codecs of single modalities, on held-out rows and on the rows they were trained on."""

import collections
from collections.abc import Iterator

import numpy as np

from sbm_jax.evaluation.batches import batches, finite_rows, in_units
from sbm_jax.evaluation.estimates import BATCHES, Estimate, estimate
from sbm_jax.evaluation.metrics.base import Evaluation, Metric
from sbm_jax.types import Split

KL_IN_USE = 0.05
"""Nats above which an entry of a VAE's latent is in use: in a Gaussian channel, a signal-to-noise ratio of 0.1."""

VARIANCE_IN_USE = 0.01
"""Share of the largest entry's variance above which an entry is in use, for codecs without a KL: an RAE's latents have
arbitrary units, but the score model's noise and a small step of the decoder are measured in units of all entries."""


class CodecQuality(Metric):
    """The used entries of each latent, and the error of reconstructions relative to the variance of the data."""

    def result(self) -> Evaluation:
        """Return means over the examples and as many training rows, leaving out rows that are not finite."""
        scene = self.scene
        if scene.subject.posteriors is None or scene.subject.codec_reconstructions is None:
            reason = "the modalities of the system have no codecs of their own"
            return Evaluation({}, {"codecs/entries_in_use": reason}, {})
        metrics, missing = self._use()
        splits = {"": scene.examples}
        if scene.trained_on is not None:
            chosen = np.random.default_rng(0).permutation(len(scene.trained_on))[: len(scene.examples)]
            splits["train_"] = scene.trained_on.take(chosen)
        for prefix, split in splits.items():
            for name, found in self._errors(split).items():
                where = f"codecs/{prefix}error_over_variance/{name}"
                (missing if isinstance(found, str) else metrics)[where] = found
        return Evaluation(metrics, missing, {})

    def _use(self) -> tuple[dict[str, Estimate], dict[str, str]]:
        """Return KL divergences in nats and numbers of entries in use, and why some are missing."""
        scene = self.scene
        means, divergences, start = collections.defaultdict(list), collections.defaultdict(list), 0
        for batch, count in self._batches(scene.examples):
            for name, (mean, log_variance) in scene.subject.posteriors(batch).items():
                there = scene.examples.having([name])[start : start + count]
                mean = np.asarray(mean, np.float64)[:count][there]
                means[name].append(mean)
                if log_variance is not None:
                    divergences[name].append(kl_of_entries(mean, np.asarray(log_variance, np.float64)[:count][there]))
            start += count
        metrics, missing = {}, {}
        for name in scene.modalities:
            rows = divergences.get(name) or means[name]
            rows = [part[finite_rows(part)] for part in rows]
            if not any(map(len, rows)):
                missing[f"codecs/entries_in_use/{name}"] = "no latent is finite"
                continue
            if name in divergences:
                metrics[f"codecs/kl/{name}"] = estimate([part.sum(axis=1) for part in rows], BATCHES)
                used = np.concatenate(rows).mean(axis=0) > KL_IN_USE
            else:
                variance = np.concatenate(rows).var(axis=0)
                used = variance > VARIANCE_IN_USE * variance.max()
            metrics[f"codecs/entries_in_use/{name}"] = Estimate(float(used.sum()), None, len(used))
        return metrics, missing

    def _errors(self, split: Split) -> dict[str, Estimate | str]:
        """Return {modality: squared error over its variance in the rows of `split`, or why it is missing}."""
        names = [name for name in self.scene.modalities if split.data[name].dtype.kind != "i"]
        found: dict[str, Estimate | str] = dict.fromkeys(self.scene.modalities, "ids have no squared error")
        present = {name: split.having([name]) for name in names}
        errors, rows, start = collections.defaultdict(list), collections.defaultdict(Moments), 0
        for batch, count in self._batches(split):
            reconstructed = self.scene.subject.codec_reconstructions(batch) if names else {}
            for name in names:
                x = batch[name][:count].reshape(count, -1).astype(np.float64)
                decoded = np.asarray(reconstructed[name], np.float64)[:count].reshape(count, -1)
                kept = finite_rows(decoded) & present[name][start : start + count]
                rows[name].add(x[kept])
                errors[name].append(np.square(decoded - x)[kept].sum(axis=1))
            start += count
        return found | {name: _relative(errors[name], rows[name]) for name in names}

    def _batches(self, split: Split) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yield padded batches of rows as networks see them, and their number of rows that are not padding."""
        for indices, count in batches(len(split), self.scene.batch_size):
            yield {name: in_units(split.data[name][indices]) for name in self.scene.modalities}, count


def _relative(errors: list[np.ndarray], rows: "Moments") -> Estimate | str:
    """Return the mean error over the variance of the rows, or why it is missing."""
    if not any(map(len, errors)):
        return "no row has it and a finite reconstruction"
    variance = rows.variance.sum()
    if variance <= 0:
        return "the data do not vary"
    return estimate([part / variance for part in errors], BATCHES)


def kl_of_entries(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """Return KL(N(mean, variance) ‖ N(0, 1)) of each entry, in nats, with the shape of both arguments."""
    return 0.5 * (np.square(mean) + np.exp(log_variance) - log_variance - 1.0)


class Moments:
    """The running variance of each entry over rows.

    Moments are taken about the first row, so that a large mean costs no precision.
    """

    def __init__(self) -> None:
        """Start without rows."""
        self.count, self.first = 0, 0.0
        self.sum = self.squares = 0.0

    def add(self, rows: np.ndarray) -> None:
        """Add rows, float64 [n, D]."""
        if not len(rows):
            return
        if not self.count:
            self.first = rows[0]
        self.count += len(rows)
        self.sum = self.sum + (rows - self.first).sum(axis=0)
        self.squares = self.squares + np.square(rows - self.first).sum(axis=0)

    @property
    def variance(self) -> np.ndarray:
        """The variance of each entry, [D]."""
        return self.squares / self.count - np.square(self.sum / self.count)
