"""What metrics are called, how they are written, and what chance would give."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Metrics = Mapping[str, Mapping[str, Any]]  # {metric: {"value", "std", "n"}}


class Headline(NamedTuple):
    """A number that is shown first.

    Attributes:
      metric: its flat name.
      title: what it is, in a few words.
      meaning: how to read it.
      reference: what the mark on its scale stands for.
    """

    metric: str
    title: str
    meaning: str
    reference: str


HEADLINES = (
    Headline(
        "coherence/given_rest",
        "Coherence given the rest",
        "share of generated modalities that show the digit of all the others",
        "chance",
    ),
    Headline(
        "coherence/given_1",
        "Coherence given one",
        "share of generated modalities that show the digit of the only one given",
        "chance",
    ),
    Headline(
        "coherence/unconditional_all",
        "Unconditional: all agree",
        "share of joint samples whose modalities all show one digit",
        "independent",
    ),
    Headline(
        "coverage/min",
        "Rarest digit",
        "its share of all unconditional samples; 0 is a lost mode",
        "even share",
    ),
    Headline(
        "classifier/accuracy",
        "Classifier on real data",
        "accuracy of the judge on held-out data; the ceiling of what it can confirm",
        "chance",
    ),
)

MAIN_METRICS = (
    *(headline.metric for headline in HEADLINES),
    "diversity/given_1",
    "inception/fid/given_rest",
    "inception/fid/unconditional",
    "classifier_features/frechet/given_rest",
    "classifier_features/frechet/unconditional",
    "sampling/network_evaluations",
    "sampling/samples_per_second",
    "sampling/diverged",
    "likelihood/elbo",
    "training/seconds",
)

STUDY_METRICS = (
    "sampling/network_evaluations",
    "coherence/given_rest",
    "coherence/given_1",
    "coherence/unconditional_all",
    "coverage/min",
    "diversity/given_1",
    "inception/fid/given_rest",
    "inception/fid/unconditional",
    "sampling/samples_per_second",
)

# Sections of the tables: title, prefix of the metrics, how to read them.
SECTIONS = (
    (
        "Conditional coherence",
        ("coherence/given_", "coherence/fixed_order/", "coherence/to_target/"),
        "Share of generated modalities in which the classifier sees the digit of the given ones.",
    ),
    (
        "Unconditional coherence",
        ("coherence/unconditional",),
        "Share of joint samples, generated from nothing, in which at least k modalities show one digit.",
    ),
    (
        "Diversity",
        ("diversity/",),
        "Squared distance of two samples for the same condition, in units of that of two real examples of one class.",
    ),
    (
        "Distance from real data: Inception-v3",
        ("inception/",),
        "FID of as many samples as are given in brackets, with its standard error (1.96 of it to each side is a 95 % "
        "interval); its extrapolation to samples without end; KID, with its spread over subsets; precision, recall, "
        "density and coverage.",
    ),
    (
        "Distance from real data: features of the digit classifier",
        ("classifier_features/",),
        "The same measures where Inception-v3 can not be had. They are not comparable with FID.",
    ),
    (
        "Likelihood",
        ("likelihood/",),
        "Bounds of the log likelihood of held-out rows, in nats, with standard errors: the mean of log weights, and "
        "the log mean of K of them. They compare systems whose decoders have the same likelihoods.",
    ),
    ("Training", ("training/",), "Seconds of all stages that a system uses, those that it shares with others too."),
    ("Latents", ("latents/",), "Cosine similarity of generated latents with those of the true data."),
    ("Mode coverage", ("coverage/",), "Share of each digit among all images of the unconditional samples."),
    (
        "Classifier",
        ("classifier/",),
        "Accuracy of the classifier that judges coherence, on data with known digits.",
    ),
    ("Reconstruction", ("reconstruction/",), "Mean squared error per element, images in [0, 1]."),
    ("Sampling", ("sampling/",), "Cost of one sample, and the share of samples that diverged."),
    ("Other", ("",), "Metrics without a section of their own."),
)

LEAD = "coherence/unconditional_all"
"""By what latent score models are compared with all other systems."""


def lead(systems: Mapping[str, Metrics]) -> str:
    """Return, in a sentence, whether the best ``sbm_`` system has the highest unconditional coherence; "" for no such.

    The error of the difference is that of as many independent samples.
    """
    found = {name: metrics[LEAD] for name, metrics in systems.items() if LEAD in metrics}
    ours = [name for name in found if name.startswith("sbm_")]
    others = [name for name in found if name not in ours]
    if not ours or not others:
        return ""
    best, rival = (max(names, key=lambda name: found[name]["value"]) for names in (ours, others))
    values = [found[name]["value"] for name in (best, rival)]
    error = math.sqrt(sum(found[n]["value"] * (1 - found[n]["value"]) / found[n]["n"] for n in (best, rival)))
    verb = "lead" if values[0] > values[1] else "do not lead"
    text = (
        f"The sbm_ systems {verb} in unconditional coherence (all agree): {best} {number(values[0])}, {rival} "
        f"{number(values[1])}, difference {values[0] - values[1]:+.3f} ± {error:.3f} (standard error of the samples)."
    )
    rarest = systems[rival].get("coverage/min")
    if rarest and values[1] > values[0]:
        text += f" The rarest digit is {number(rarest['value'])} of what {rival} generates."
    return text


LABELS = (
    (r"coherence/given_rest", "every modality given the rest, mean"),
    (r"coherence/given_(\d+)", "{} given, random sets"),
    (r"coherence/given_rest/(.+)", "{} given the rest"),
    (r"coherence/fixed_order/given_(\d+)", "first {} given"),
    (r"coherence/fixed_order/given_(\d+)/last", "first {} given, last modality only"),
    (r"coherence/to_target/given_(\d+)/(.+)", "first {} others given, {} only"),
    (r"coherence/unconditional_all", "all agree"),
    (r"coherence/unconditional_(\d+)", "at least {} agree with the first modality"),
    (r"coherence/unconditional_majority_(\d+)", "at least {} agree with one another"),
    (r"diversity/given_1", "one given"),
    (r"latents/cosine/given_rest", "every modality given the rest, mean"),
    (r"latents/cosine/given_rest/(.+)", "{} given the rest"),
    (r"(?:inception|classifier_features)/(.+)", "{}"),
    (r"coverage/min", "rarest digit"),
    (r"coverage/digit_(\d+)", "digit {}"),
    (r"classifier/accuracy", "real data, all modalities"),
    (r"classifier/accuracy/(.+)", "real data, {}"),
    (r"classifier/reconstruction/(.+)", "reconstructions, {}"),
    (r"reconstruction/mse/(.+)", "{}"),
    (r"likelihood/elbo", "evidence lower bound"),
    (r"likelihood/importance_weighted", "importance-weighted bound"),
    (r"training/seconds", "seconds of all stages"),
    (r"sampling/network_evaluations", "network evaluations per sample"),
    (r"sampling/samples_per_second", "samples per second"),
    (r"sampling/diverged", "diverged"),
)


def label(metric: str) -> str:
    """Return what a metric is called in tables; its own name where it has no other."""
    for pattern, text in LABELS:
        match = re.fullmatch(pattern, metric)
        if match:
            return text.format(*match.groups())
    return metric


def order(metric: str) -> tuple[int, int]:
    """Return the key by which metrics are sorted in tables: by kind, then by their number."""
    for kind, (pattern, _) in enumerate(LABELS):
        match = re.fullmatch(pattern, metric)
        if match:
            argument = match[1] if match.groups() else ""
            return kind, int(argument) if argument.isdecimal() else 0
    return len(LABELS), 0


def number(value: float | None, like: float | None = None) -> str:
    """Return a number with about three significant digits, or with the decimals that `like` would get."""
    if value is None:
        return "not finite"
    size = abs(value if like is None else like)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01 or size == 0:
        return f"{value:.3f}"
    if size < 5e-5:
        return f"{value:.1e}"
    return f"{value:.{1 - math.floor(math.log10(size))}f}"


def estimate_text(estimate: Mapping[str, Any]) -> str:
    """Return ``value ± std (n)``, without the spread where there is none."""
    value, std = estimate["value"], estimate["std"]
    spread = "" if std is None else f" ± {number(std, like=value or std)}"
    return f"{number(value)}{spread} ({estimate['n']:,})"


def num_classes(metrics: Metrics) -> int | None:
    """Return the number of digits whose coverage was measured, None when it was not."""
    return sum(name.startswith("coverage/digit_") for name in metrics) or None


def num_modalities(metrics: Metrics) -> int | None:
    """Return M as far as unconditional coherence tells it, else None."""
    sizes = [re.fullmatch(r"coherence/unconditional_(\d+)", name) for name in metrics]
    return max((int(match[1]) for match in sizes if match), default=None)


def chance(metric: str, metrics: Metrics) -> float | None:
    """Return what uniform, independent guesses would give, None where that has no meaning.

    At least k of M agree with the first: P(1 + Binomial(M - 1, 1/K) ≥ k), K the number of digits.
    """
    classes, modalities = num_classes(metrics), num_modalities(metrics)
    if classes is None:
        return None
    if metric.startswith(
        ("coherence/given_", "coherence/fixed_order/", "coherence/to_target/", "classifier/", "coverage/")
    ):
        return 1 / classes
    match = re.fullmatch(r"coherence/unconditional_(\d+|all)", metric)
    if match is None or modalities is None:
        return None
    agreeing = modalities if match[1] == "all" else int(match[1])
    p, others = 1 / classes, modalities - 1
    return sum(math.comb(others, j) * p**j * (1 - p) ** (others - j) for j in range(agreeing - 1, others + 1))
