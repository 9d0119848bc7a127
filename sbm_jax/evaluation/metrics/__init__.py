"""Metrics, one per file, by their names in configs."""

from sbm_jax.config import plain
from sbm_jax.evaluation.metrics.agreement import Agreement
from sbm_jax.evaluation.metrics.base import Call, Draw, Evaluation, Metric, Plan, Scene, Subject, Tools
from sbm_jax.evaluation.metrics.class_shares import ClassShares
from sbm_jax.evaluation.metrics.classifier import ClassifierAccuracy
from sbm_jax.evaluation.metrics.clip_score import ClipScore
from sbm_jax.evaluation.metrics.codecs import CodecQuality
from sbm_jax.evaluation.metrics.coherence import Coherence
from sbm_jax.evaluation.metrics.cosine import Cosine
from sbm_jax.evaluation.metrics.diversity import Diversity
from sbm_jax.evaluation.metrics.f1 import F1
from sbm_jax.evaluation.metrics.frechet import Frechet
from sbm_jax.evaluation.metrics.iou import Iou
from sbm_jax.evaluation.metrics.likelihood import Likelihood
from sbm_jax.evaluation.metrics.mse import Mse
from sbm_jax.evaluation.metrics.per_attribute import PerAttribute
from sbm_jax.evaluation.metrics.readings import Readings
from sbm_jax.evaluation.metrics.reconstruction import Reconstruction
from sbm_jax.evaluation.metrics.robustness import Robustness
from sbm_jax.evaluation.metrics.sampling import Sampling
from sbm_jax.evaluation.metrics.sharpness import Sharpness

METRICS: dict[str, type[Metric]] = {
    "coherence": Coherence,
    "class_shares": ClassShares,
    "diversity": Diversity,
    "cosine": Cosine,
    "frechet": Frechet,
    "likelihood": Likelihood,
    "reconstruction": Reconstruction,
    "codecs": CodecQuality,
    "classifier": ClassifierAccuracy,
    "sampling": Sampling,
    "sharpness": Sharpness,
    "mse": Mse,
    "f1": F1,
    "iou": Iou,
    "per_attribute": PerAttribute,
    "readings": Readings,
    "robustness": Robustness,
    "agreement": Agreement,
    "clip_score": ClipScore,
}

# They compare named modalities with the true data of the row.
_NOT_BY_DEFAULT = ("mse", "f1", "iou", "per_attribute", "readings", "robustness", "agreement", "clip_score")

DEFAULT = {name: plain(cls.Options()) for name, cls in METRICS.items() if name not in _NOT_BY_DEFAULT}
"""The default metrics with all their options; distances and likelihoods are off (with no examples)."""

__all__ = ["DEFAULT", "METRICS", "Call", "Draw", "Evaluation", "Metric", "Plan", "Scene", "Subject", "Tools"]
