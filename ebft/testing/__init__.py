"""The conformance kit: checks the contract of a part, with one function for each kind.

    from ebft.testing import check_feature_map

    def test_it_keeps_to_the_contract():
        check_feature_map(MyFeatures(buckets=7))

Each check builds the part on a tiny model, runs it, and raises `AssertionError` naming a property
that does not hold. Nothing is downloaded, and no test framework is needed.
"""

from ebft.testing.baselines import check_baseline
from ebft.testing.data import check_data
from ebft.testing.evaluators import check_evaluator
from ebft.testing.feature_maps import check_feature_map
from ebft.testing.plans import check_plan
from ebft.testing.rewards import check_reward
from ebft.testing.samplers import check_sampler
from ebft.testing.tiny import (
    tiny_documents,
    tiny_policy,
    tiny_resources,
    tiny_rollouts,
    tiny_tokenizer,
    write_tiny_model,
    write_tiny_texts,
)
from ebft.testing.transforms import check_transform

__all__ = [
    "check_baseline",
    "check_data",
    "check_evaluator",
    "check_feature_map",
    "check_plan",
    "check_reward",
    "check_sampler",
    "check_transform",
    "tiny_documents",
    "tiny_policy",
    "tiny_resources",
    "tiny_rollouts",
    "tiny_tokenizer",
    "write_tiny_model",
    "write_tiny_texts",
]
