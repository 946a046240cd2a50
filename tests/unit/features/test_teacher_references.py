"""A teacher's rollouts as references."""

from dataclasses import replace

import torch

from ebft.features.bag_of_tokens import BagOfTokens
from ebft.features.teacher_references import STREAM, TeacherReferences
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

BAG = BagOfTokens(dimensions=None, scale="count")


def case(teacher, m=3):
    policy = tiny_policy(0)
    resources = replace(tiny_resources(policy), load_other={"its path": teacher}.get)
    contexts = Strided(start=3, stride=4, rollout_length=5)(tiny_documents([19, 12]))
    rollouts = HfTree(n=4).build(resources)(contexts, step=6)
    part = TeacherReferences(teacher="its path", feature_map=BAG, m=m)
    return resources, rollouts, part.build(resources)


def test_references_are_features_of_what_the_teacher_samples():
    teacher = tiny_policy(1)
    resources, rollouts, feature_map = case(teacher)
    features = feature_map(rollouts)
    of_teacher = HfTree(n=3).build(replace(resources, policy=teacher, seed=STREAM))
    sampled = of_teacher(rollouts.contexts, step=0)
    bag = BAG.build(resources)
    torch.testing.assert_close(features.references, bag(sampled).samples)
    torch.testing.assert_close(features.samples, bag(rollouts).samples)


def test_a_teacher_that_is_the_policy_samples_other_rollouts():
    """With the policy's random numbers, its rollouts would be the references."""
    policy = tiny_policy(0)
    _, rollouts, feature_map = case(policy, m=4)
    features = feature_map(replace(rollouts))
    same = (features.references == features.samples).all(-1)
    assert not same.all(1).any()


def test_they_are_the_same_when_a_context_comes_again():
    _, rollouts, feature_map = case(tiny_policy(1))
    again = replace(rollouts, tokens=rollouts.tokens.flip(1), mask=rollouts.mask.flip(1))
    assert torch.equal(feature_map(rollouts).references, feature_map(again).references)
