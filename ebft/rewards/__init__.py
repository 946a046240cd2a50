"""Rewards: rollouts and features → unary and pairwise terms."""

from ebft.parts.hooks import Parts, hookimpl
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rewards.kernel import KernelScore
from ebft.rewards.reverse_kl import ReverseKl
from ebft.rewards.token_overlap import TokenOverlap
from ebft.rewards.verifiable import Verifiable
from ebft.rewards.weighted_sum import WeightedSum


@hookimpl
def register_rewards() -> Parts:
    return {
        "feature_matching": FeatureMatching,
        "kernel": KernelScore,
        "reverse_kl": ReverseKl,
        "token_overlap": TokenOverlap,
        "verifiable": Verifiable,
        "weighted_sum": WeightedSum,
    }
