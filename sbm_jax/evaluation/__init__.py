"""Judging any system: arrays in, numbers with their spread and sample count out."""

from sbm_jax.evaluation.coverage import of_real as real_shares
from sbm_jax.evaluation.estimates import Estimate
from sbm_jax.evaluation.evaluator import (
    Evaluation,
    EvaluationConfig,
    check_size,
    check_targets,
    evaluate,
    real_distances,
)

__all__ = [
    "Estimate",
    "Evaluation",
    "EvaluationConfig",
    "check_size",
    "check_targets",
    "evaluate",
    "real_distances",
    "real_shares",
]
