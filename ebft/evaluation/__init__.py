"""Evaluators: measurements on held-out documents."""

from ebft.evaluation.accuracy import Accuracy
from ebft.evaluation.cross_entropy import CrossEntropy
from ebft.evaluation.entropy_drift import EntropyDrift
from ebft.evaluation.feature_matching_by_length import FeatureMatchingByLength
from ebft.evaluation.feature_matching_loss import FeatureMatchingLoss
from ebft.evaluation.kernel_score import KernelScoreEvaluation
from ebft.evaluation.translation import Translation
from ebft.parts.hooks import Parts, hookimpl


@hookimpl
def register_evaluators() -> Parts:
    return {
        "cross_entropy": CrossEntropy,
        "feature_matching_loss": FeatureMatchingLoss,
        "feature_matching_by_length": FeatureMatchingByLength,
        "kernel_score": KernelScoreEvaluation,
        "entropy_drift": EntropyDrift,
        "accuracy": Accuracy,
        "translation": Translation,
    }
