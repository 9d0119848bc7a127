"""Names of metrics, formatting of their values, and the values expected by chance."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Metrics = Mapping[str, Mapping[str, Any]]  # {metric: {"value", "std", "n", "spread"}}

SPREADS = {
    "repeats": "standard deviation over repeats with other noise, on the same test rows",
    "batches": "standard deviation over batches of rows",
    "calls": "standard deviation over timed calls",
    "standard_error": "standard error",
    "standard_error_bound": "upper bound of the standard error, as modalities share rows",
    "subsets": "standard deviation over random subsets of the samples, which is not a standard error",
    "draws": "standard deviation over simulated samples of a perfect generator",
}
"""What ± stands for, by the ``spread`` of an estimate."""


class Headline(NamedTuple):
    """A number that is shown at the top.

    Attributes:
      metric: its flat name.
      title: its name in a few words.
      meaning: how to read it.
      reference: meaning of the mark on its scale.
    """

    metric: str
    title: str
    meaning: str
    reference: str


HEADLINES = (
    Headline(
        "coherence/given_rest",
        "Coherence given the rest",
        "share of generated modalities that show the class of all the others",
        "chance",
    ),
    Headline(
        "coherence/given_1",
        "Coherence given one",
        "share of generated modalities that show the class of the only one given",
        "chance",
    ),
    Headline(
        "coherence/unconditional_all",
        "Unconditional: all agree",
        "share of joint samples whose modalities all show one class",
        "independent",
    ),
    Headline(
        "coverage/min",
        "Rarest class",
        "its share of all unconditional samples, and that of a perfect generator; 0 is a lost mode",
        "perfect",
    ),
    Headline(
        "classifier/accuracy",
        "Classifier on real data",
        "accuracy of the judge on held-out data: an upper limit of what it can confirm",
        "chance",
    ),
)

MAIN_METRICS = (
    "coherence/given_rest",
    "coherence/given_1",
    "coherence/unconditional_all",
    "coverage/min",
    "coverage/min_expected",
    "coverage/total_variation",
    "coverage/total_variation_expected",
    "classifier/accuracy",
    "diversity/given_1",
    "inception/fid/given_rest",
    "inception/fid/unconditional",
    "classifier_features/frechet/given_rest",
    "classifier_features/frechet/unconditional",
    "vggish/fad/given_rest",
    "vggish/fad/unconditional",
    "sharpness/given_rest",
    "sampling/network_evaluations",
    "sampling/decoder_evaluations",
    "sampling/samples_per_second",
    "sampling/diverged",
    "likelihood/elbo",
    "training/seconds",
)

BESIDE_THE_TRUTH = re.compile(
    r"(f1|iou|readings/f1|mse_over_variance|agreement/(cosine|rank)|clip_score)/.+|per_attribute/(f1|balanced_accuracy)/[^/]+/[^/]+"
)
"""Metrics that compare samples with the true data of their row, without labels; for attributes, only averages."""


def main_metrics(systems: Mapping[str, Any]) -> list[str]:
    """Return the names of the main metrics, with those that compare samples with the true data, and users' own.

    Args:
      systems: ``"systems"`` of ``results.json``.
    """
    names = dict.fromkeys(name for system in systems.values() for name in system["metrics"])
    beside = [name for name in names if BESIDE_THE_TRUTH.fullmatch(entry(name)[1])]
    beside += [name for name in names if entry(name)[1].partition("/")[0] not in _GROUPS]
    place = MAIN_METRICS.index("sampling/network_evaluations")
    return [*MAIN_METRICS[:place], *beside, *MAIN_METRICS[place:]]


STUDY_METRICS = (
    "sampling/network_evaluations",
    "sampling/decoder_evaluations",
    "coherence/given_rest",
    "coherence/given_1",
    "coherence/unconditional_all",
    "coverage/min",
    "diversity/given_1",
    "inception/fid/given_rest",
    "inception/fid/unconditional",
    "classifier_features/frechet/given_rest",
    "sharpness/given_rest",
    "sampling/samples_per_second",
)

_DISTANCES = (
    "FID has a standard error (1.96 of it to each side is a 95 % interval), and its mean over modalities an upper "
    "bound of one, because their errors are not independent; the spread of KID is over random subsets. Precision, "
    "recall, density and coverage depend on the number of examples, and compare as many real ones as samples. Real "
    "data: as many training examples, compared with the same test examples; a perfect generator gets about the same."
)

# Sections of the tables: title, prefixes of the metrics, how to read them.
SECTIONS = (
    (
        "Conditional coherence",
        ("coherence/given_", "coherence/fixed_order/", "coherence/to_target/"),
        "Share of generated modalities in which the classifier sees the class of the given ones. A sample that is not "
        "finite counts as wrong. Chance: uniform guesses.",
    ),
    (
        "Unconditional coherence",
        ("coherence/unconditional",),
        "Share of joint samples, generated from nothing, in which at least k modalities show one class. Chance: "
        "classes drawn uniformly and independently in each modality.",
    ),
    (
        "Coherence given one named modality",
        ("coherence/from/",),
        "Share of samples of a modality in which the classifier sees the class of the only one given, as in the table "
        "of directions. Chance: uniform guesses.",
    ),
    ("Coherence of further questions", ("coherence/",), "The same for other questions."),
    (
        "Samples beside the truth",
        ("f1/", "iou/", "per_attribute/", "readings/", "mse/", "mse_over_variance/"),
        "Generated data compared with the true data of the same row: F1 and intersection over union of masks and "
        "attributes, averaged over rows, where a row without positives scores 0 even if none is found; the F1 of what "
        "a reader sees in generated data, and in real data (real); F1 and balanced accuracy, averaged over attributes "
        "(chance: uniform guesses); and mean squared error per element, also divided by the variance of the data: "
        "predicting their mean gives 1, and predicting another row 2. "
        "Samples that are not finite are left out.",
    ),
    (
        "Agreement",
        ("agreement/",),
        "Cosine, in the space of the matcher that this run trained, between generated data and their condition, "
        "between two modalities generated together from nothing, or within real rows (real); and the rank of the true "
        "source among held-out rows by this cosine: 1 is best, and half of their number is chance.",
    ),
    (
        "CLIP score",
        ("clip_score/",),
        "100 times the cosine of CLIP's vectors of image and text, 0 if negative: of what is generated and what is "
        "given, of both from nothing, and of real rows (real). Higher is better.",
    ),
    (
        "Robustness",
        ("robustness/",),
        "F1 of predictions from attacked data, by the strength of the attack in the units of the data, and the share "
        "of the F1 without attack that is lost. The attack uses the gradient of a network that no system contains.",
    ),
    (
        "Diversity",
        ("diversity/",),
        "Squared distance between two samples for the same condition, in units of that between two real examples of "
        "one class. For ids it is the share of positions that differ. Pairs that are not finite are left out.",
    ),
    (
        "Distance from real data: Inception-v3",
        ("inception/",),
        "FID of as many samples as are given in brackets, and its extrapolation to infinitely many; KID; "
        f"precision, recall, density and coverage. {_DISTANCES}",
    ),
    (
        "Distance from real data: features of the classifier",
        ("classifier_features/",),
        f"The same measures where Inception-v3 is not available. They are not comparable with FID. {_DISTANCES} The "
        "classifier was trained on these training examples, so that their features may differ more from those of test "
        "examples than those of fresh ones would.",
    ),
    (
        "Distance from real data: VGGish",
        ("vggish/",),
        "FAD, the Fréchet distance between VGGish features of generated and of real sounds, in windows of 0.96 s, both "
        f"synthesised from spectrograms; and the same measures as for images. {_DISTANCES}",
    ),
    (
        "Sharpness",
        ("sharpness/",),
        "Mean absolute difference of neighbouring pixels of generated images, over that of real ones: below 1 they "
        "are blurred, above 1 they are noisy.",
    ),
    (
        "Likelihood",
        ("likelihood/",),
        "Bounds of the log likelihood of held-out rows, in nats, with standard errors over rows: the mean of log "
        "weights, and the log mean of K of them. They compare systems whose decoders have the same likelihoods.",
    ),
    ("Training", ("training/",), "Seconds of all stages that a system uses, including those it shares with others."),
    (
        "Latents",
        ("latents/",),
        "Cosine similarity of generated latents with those of the true data, all other modalities given.",
    ),
    (
        "Shares of the classes",
        ("coverage/",),
        "Share of each class in all modalities of the unconditional samples. By chance alone, the rarest class of few "
        "samples is rarer than in real data, and the shares differ from the real ones. So the results of a perfect "
        "generator are simulated: as many joint samples, with classes drawn from those of the test data. Total "
        "variation is half the sum of the absolute differences of the shares, from 0 to 1.",
    ),
    (
        "Classifier",
        ("classifier/",),
        "Accuracy of the classifier that judges coherence, on data with known classes. Chance: uniform guesses. "
        "The spread is over batches of rows.",
    ),
    (
        "Reconstruction",
        ("reconstruction/",),
        "Mean squared error per element, images in [0, 1]; for sequences of ids, such as words, the share that is "
        "right, without padding. The spread is over batches of rows.",
    ),
    (
        "Codecs",
        ("codecs/",),
        "How much of the data each codec keeps. Entries in use: for a VAE, latent entries with more than 0.05 nats of "
        "KL; for an RAE, those with more than 0.01 of the largest variance; in brackets the size of the latent. Error "
        "over variance: 0 for a perfect reconstruction, 1 for the mean of the data.",
    ),
    (
        "Sampling",
        ("sampling/",),
        "Cost of one sample, and the share of samples that diverged. The spread of the speed is over timed calls.",
    ),
    ("Other", ("",), "Metrics without a section of their own."),
)

_GROUPS = {prefix.partition("/")[0] for _, prefixes, _ in SECTIONS for prefix in prefixes if prefix}
"""The first parts of the names of metrics."""


def entry(metric: str) -> tuple[str, str]:
    """Split a metric's name into the config entry that it is under, "" if there is none, and its name there."""
    parts = metric.split("/")
    for place, part in enumerate(parts[:-1]):
        if part in _GROUPS:
            return "/".join(parts[:place]), "/".join(parts[place:])
    return "", metric


LEAD = "coherence/unconditional_all"
"""The metric by which latent score models are compared with all other systems."""


def lead(systems: Mapping[str, Metrics]) -> str:
    """Return a sentence on whether the best ``sbm_`` system has the highest unconditional coherence, or "".

    The error of the difference assumes independent samples.
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
        text += f" The rarest class is {number(rarest['value'])} of what {rival} generates."
    return text


LABELS = (
    (r"coherence/given_rest", "every modality given the rest, mean"),
    (r"coherence/given_(\d+)", "{} given, random sets"),
    (r"coherence/given_rest/(.+)", "{} given the rest"),
    (r"coherence/fixed_order/given_(\d+)", "first {} given"),
    (r"coherence/fixed_order/given_(\d+)/last", "first {} given, last modality only"),
    (r"coherence/to_target/given_(\d+)/(.+)", "first {} others given, {} only"),
    (r"coherence/from/(.+)/to/(.+)", "{1} given {0}"),
    (r"coherence/unconditional_all", "all agree"),
    (r"coherence/unconditional_(\d+)", "at least {} agree with the first modality"),
    (r"coherence/unconditional_majority_(\d+)", "at least {} agree with one another"),
    (r"f1/given_(.+)/(.+)", "F1 of {1} given {0}"),
    (r"iou/given_(.+)/(.+)", "intersection over union of {1} given {0}"),
    (r"mse/given_(.+)/(.+)", "squared error of {1} given {0}"),
    (r"mse_over_variance/given_(.+)/(.+)", "squared error of {1} given {0}, over the variance"),
    (r"per_attribute/f1/given_([^/]+)/([^/]+)", "F1 of {1} given {0}, macro average"),
    (r"per_attribute/balanced_accuracy/given_([^/]+)/([^/]+)", "balanced accuracy of {1} given {0}, macro average"),
    (r"per_attribute/base_rate/given_([^/]+)/([^/]+)", "base rate of {1} in rows with {0}, mean"),
    (r"agreement/cosine/given_(.+)/(.+)", "cosine of {1} and the given {0}"),
    (r"agreement/rank/given_(.+)/(.+)", "rank of the true {0} by the generated {1}"),
    (r"agreement/(cosine|rank)/real/(.+)/(.+)", "{0} of real {1} and {2}"),
    (r"agreement/cosine/unconditional/(.+)/(.+)", "cosine of {0} and {1} from nothing"),
    (r"clip_score/given_(.+)/(.+)", "{1} and the given {0}"),
    (r"clip_score/unconditional/(.+)/(.+)", "{0} and {1} from nothing"),
    (r"clip_score/real/(.+)/(.+)", "real {0} and {1}"),
    (r"diversity/given_1", "one given"),
    (r"sharpness/given_rest", "every picture given the rest, mean"),
    (r"sharpness/given_rest/(.+)", "{} given the rest"),
    (r"sharpness/unconditional", "from nothing, mean"),
    (r"sharpness/unconditional/(.+)", "{} from nothing"),
    (r"latents/cosine/given_rest", "every modality given the rest, mean"),
    (r"latents/cosine/given_rest/(.+)", "{} given the rest"),
    (r"(?:inception|classifier_features|vggish)/(.+)", "{}"),
    (r"coverage/min", "rarest class"),
    (r"coverage/min_expected", "rarest class, expected of a perfect generator"),
    (r"coverage/total_variation", "total variation from the real shares"),
    (r"coverage/total_variation_expected", "total variation, expected of a perfect generator"),
    (r"coverage/class_(\d+)", "class {}"),
    (r"classifier/accuracy", "real data, all modalities"),
    (r"classifier/accuracy/(.+)", "real data, {}"),
    (r"classifier/reconstruction/(.+)", "reconstructions, {}"),
    (r"reconstruction/mse/(.+)", "{}"),
    (r"reconstruction/token_accuracy/(.+)", "{}, share of ids"),
    (r"codecs/entries_in_use/(.+)", "{}: entries in use"),
    (r"codecs/kl/(.+)", "{}: KL divergence from the prior, nats"),
    (r"codecs/error_over_variance/(.+)", "{}: error over variance"),
    (r"codecs/train_error_over_variance/(.+)", "{}: error over variance, training rows"),
    (r"likelihood/elbo", "evidence lower bound"),
    (r"likelihood/importance_weighted", "importance-weighted bound"),
    (r"training/seconds", "seconds of all stages"),
    (r"sampling/network_evaluations", "network evaluations per sample"),
    (r"sampling/samples_per_second", "samples per second"),
    (r"sampling/diverged", "diverged"),
)


def label(metric: str) -> str:
    """Return a metric's label in tables, with the entry that it is under; its own name if it has no label."""
    own_entry, name = entry(metric)
    for pattern, text in LABELS:
        match = re.fullmatch(pattern, name)
        if match:
            return text.format(*match.groups()) + (f" ({own_entry})" if own_entry else "")
    return metric


def order(metric: str) -> tuple[int, int]:
    """Return the sorting key of a metric in tables: its place in `LABELS`, then its number."""
    name = entry(metric)[1]
    for place, (pattern, _) in enumerate(LABELS):
        match = re.fullmatch(pattern, name)
        if match:
            argument = match[1] if match.groups() else ""
            return place, int(argument) if argument.isdecimal() else 0
    return len(LABELS), 0


def number(value: float | None, like: float | None = None) -> str:
    """Format a number with about three significant digits, or with the decimals that `like` would get."""
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
    """Format an estimate as ``value ± spread (n)``, without the spread if there is none."""
    value, std = estimate["value"], estimate["std"]
    spread = "" if std is None else f" ± {number(std, like=value or std)}"
    return f"{number(value)}{spread} ({estimate['n']:,})"


def num_classes(metrics: Metrics) -> int | None:
    """Return the number of classes whose shares were measured, or None if they were not."""
    return sum(name.startswith("coverage/class_") for name in metrics) or None


def num_modalities(metrics: Metrics) -> int | None:
    """Return M as inferred from the unconditional coherence, or None."""
    sizes = [re.fullmatch(r"coherence/unconditional_(\d+)", name) for name in metrics]
    return max((int(match[1]) for match in sizes if match), default=None)


def _of_its_question(metric: str, metrics: Metrics) -> tuple[str, Metrics]:
    """Return a metric, and all of the same question, under the names that they have with a single question."""
    group, question, name = [*metric.split("/", 2), ""][:3]
    if f"coverage/{question}/class_0" not in metrics:
        return metric, metrics
    parts = [(other.split("/", 2), estimate) for other, estimate in metrics.items()]
    own = {f"{p[0]}/{p[2]}": estimate for p, estimate in parts if len(p) == 3 and p[1] == question}
    return f"{group}/{name}", own


def chance(metric: str, metrics: Metrics) -> float | None:
    """Return the value that uniform, independent guesses would give; None where that has no meaning.

    At least k of M agree with the first: P(1 + Binomial(M - 1, 1/K) ≥ k), K the number of classes.
    """
    if entry(metric)[1].startswith("per_attribute/balanced_accuracy/"):
        return 1 / 2
    metric, metrics = _of_its_question(metric, metrics)
    classes, modalities = num_classes(metrics), num_modalities(metrics)
    if classes is None:
        return None
    families = ("given_", "fixed_order/", "to_target/", "from/")
    if metric.startswith(("classifier/", *(f"coherence/{family}" for family in families))):
        return 1 / classes
    match = re.fullmatch(r"coherence/unconditional_(\d+|all)", metric)
    if match is None or modalities is None:
        return None
    agreeing = modalities if match[1] == "all" else int(match[1])
    p, others = 1 / classes, modalities - 1
    return sum(math.comb(others, j) * p**j * (1 - p) ** (others - j) for j in range(agreeing - 1, others + 1))


def reference(metric: str, metrics: Metrics) -> float | None:
    """Return the reference value of a metric: that of a perfect generator, or chance, or None."""
    expected = metrics.get(f"{metric}_expected")
    return expected["value"] if expected else chance(metric, metrics)


def real_counterpart(metric: str, metrics: Metrics, real: Metrics) -> Mapping[str, Any] | None:
    """Return the estimate on real data for the same modalities or class as a metric, or None.

    Args:
      metric: a class share, or a distance of one modality or averaged over modalities.
      metrics: the system's metrics.
      real: metrics of real data: ``coverage/real/<class>``, for further questions ``coverage/<question>/real/<class>``,
        ``<space>/<measure>/real`` and ``.../real/<modality>``.
    """
    before, _, last = metric.rpartition("/")
    if metric.startswith("coverage/"):
        return real.get(f"{before}/real/{last}")
    space, _, rest = metric.partition("/")
    prefix = f"{space}/{rest.partition('/')[0]}/real"
    members = {name.removeprefix(f"{metric}/") for name in metrics if name.startswith(f"{metric}/")}
    known = {name.removeprefix(f"{prefix}/") for name in real if name.startswith(f"{prefix}/")}
    if not members:
        return real.get(f"{prefix}/{last}")
    if len(members) == 1:
        return real.get(f"{prefix}/{members.pop()}")
    return real.get(prefix) if members == known else None


def spread_notes(metrics: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """Return a sentence on what ± stands for in these metrics, the most frequent spread first; "" without any.

    Args:
      metrics: the shown estimates of each metric.
    """
    names: dict[str, list[str]] = {}
    for name, estimates in metrics.items():
        for spread in {e["spread"]: None for e in estimates if e.get("spread")}:
            names.setdefault(spread, []).append(name)
    if not names:
        return ""
    main = max(names, key=lambda spread: len(names[spread]))
    others = [f"in {', '.join(found)} the {SPREADS[spread]}" for spread, found in names.items() if spread != main]
    return f"± is the {'; '.join([SPREADS[main], *others])}."
