"""Evaluation of any system: arrays in, estimates with their spread and sample count out."""

from sbm_jax.evaluation.config import EvaluationConfig, check_data, check_metrics, check_size
from sbm_jax.evaluation.estimates import Estimate, estimate
from sbm_jax.evaluation.evaluator import evaluate, real
from sbm_jax.evaluation.metrics.base import Draw, Evaluation, Metric, Plan, Scene, Subject, Tools
from sbm_jax.evaluation.observed_sets import Ask, ask_given, asks

__all__ = [
    "Ask",
    "Draw",
    "Estimate",
    "Evaluation",
    "EvaluationConfig",
    "Metric",
    "Plan",
    "Scene",
    "Subject",
    "Tools",
    "ask_given",
    "asks",
    "check_data",
    "check_metrics",
    "check_size",
    "estimate",
    "evaluate",
    "real",
]
