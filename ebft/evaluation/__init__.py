"""Evaluators: what is measured on held-out documents."""

from ebft.evaluation.cross_entropy import CrossEntropy
from ebft.evaluation.feature_matching_loss import FeatureMatchingLoss
from ebft.hookspecs import Parts, hookimpl


@hookimpl
def register_evaluators() -> Parts:
    return {"cross_entropy": CrossEntropy, "feature_matching_loss": FeatureMatchingLoss}
