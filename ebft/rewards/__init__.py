"""Rewards: rollouts and features → unary and pairwise terms."""

from ebft.hookspecs import Parts, hookimpl
from ebft.rewards.feature_matching import FeatureMatching


@hookimpl
def register_rewards() -> Parts:
    return {"feature_matching": FeatureMatching}
