"""`check_feature_map`: is φ a fixed function of each continuation, with the right shapes?"""

from __future__ import annotations

from dataclasses import replace

import torch

from ebft.parts.interfaces import FeatureMap, HasFeaturesOfLengths
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Part, Resources
from ebft.rollout.records import Features, Rollouts
from ebft.testing.common import (
    Unchanged,
    check_options,
    check_tensor,
    close,
    contexts_of_both_plans,
    promises_independence,
    require,
)
from ebft.testing.tiny import tiny_resources, tiny_rollouts


def check_feature_map(
    part: Part, resources: Resources | None = None, *, tolerance: float = 1e-6
) -> None:
    """Checks a feature map on rollouts of both plans; differences up to `tolerance` are rounding.

    It checks shapes, dtype, finiteness and no gradients; the same features when called or built
    again and for any batch; and that φ of a rollout depends only on its tokens within its mask, and
    equals φ of the reference for the reference's tokens. Raises `AssertionError`.
    """
    check_options(part, FeatureMapPart)
    resources = tiny_resources() if resources is None else resources
    vocabulary = resources.policy.config.vocab_size
    feature_map = part.build(resources)
    require(part, isinstance(feature_map, FeatureMap), "build() returns something to call")
    for contexts in contexts_of_both_plans(resources).values():
        rollouts = tiny_rollouts(contexts, n=3, vocabulary=vocabulary)
        unchanged = Unchanged(rollouts)
        features = feature_map(rollouts)
        require(part, bool(unchanged), "it does not modify its input")
        _check_shapes(part, features, rollouts)
        _check_repeatable(part, features, rollouts, feature_map, resources, tolerance)
        _check_a_function_of_the_tokens(part, features, rollouts, feature_map, tolerance)
        _check_lengths(part, rollouts, feature_map, tolerance)
        if promises_independence(part):
            _check_independence(part, features, rollouts, feature_map, tolerance)


def _check_shapes(part: Part, features: Features, rollouts: Rollouts) -> None:
    require(part, isinstance(features, Features), "it returns ebft.Features")
    P, n, _ = rollouts.tokens.shape
    D, m = features.samples.shape[-1], features.references.shape[1]
    check_tensor(part, "features.samples", features.samples, (P, n, D))
    check_tensor(part, "features.references", features.references, (P, m, D))
    require(
        part,
        features.samples.dtype == features.references.dtype,
        "samples and references have the same dtype",
    )
    require(part, D % features.layers == 0, f"D = {D} is a multiple of layers = {features.layers}")
    require(part, not features.paired or m == n, "paired features have m = n references")


def _check_repeatable(
    part: Part,
    features: Features,
    rollouts: Rollouts,
    feature_map: FeatureMap,
    resources: Resources,
    tolerance: float,
) -> None:
    require(part, _same(feature_map(rollouts), features, 0), "called again, it gives the same")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # it may take its randomness from resources.seed only
        again = part.build(resources)(rollouts)
    require(part, _same(again, features, tolerance), "built again, it gives the same")
    by_one = replace(rollouts, contexts=rollouts.contexts.one_by_one())
    require(
        part,
        _same(feature_map(by_one), features, tolerance),
        "it does not depend on micro-batches",
    )
    for place, some in by_one.split():
        expected = replace(
            features, samples=features.samples[place], references=features.references[place]
        )
        require(
            part,
            _same(feature_map(some), expected, tolerance),
            "features of a document do not depend on the other documents of the batch",
        )


def _check_a_function_of_the_tokens(
    part: Part,
    features: Features,
    rollouts: Rollouts,
    feature_map: FeatureMap,
    tolerance: float,
) -> None:
    flipped = replace(
        rollouts,
        tokens=rollouts.tokens.flip(1), mask=rollouts.mask.flip(1),
        log_probs=rollouts.log_probs.flip(1),
    )  # fmt: skip
    require(
        part,
        close(feature_map(flipped).samples, features.samples.flip(1), tolerance),
        "rollouts in another order have their features in that order",
    )
    beyond = replace(rollouts, tokens=rollouts.tokens.where(rollouts.mask, 0))
    require(
        part,
        _same(feature_map(beyond), features, tolerance),
        "tokens outside the mask change nothing",
    )
    contexts = rollouts.contexts
    if features.references.shape[1] != 1:
        return
    reference = replace(
        rollouts,
        tokens=contexts.reference[:, None].expand_as(rollouts.tokens).contiguous(),
        mask=contexts.reference_mask[:, None].expand_as(rollouts.mask).contiguous(),
    )
    same = feature_map(reference)
    require(
        part,
        close(same.samples, same.references.expand_as(same.samples), tolerance),
        "a rollout with the reference's tokens has the reference's features",
    )


def _check_lengths(
    part: Part, rollouts: Rollouts, feature_map: FeatureMap, tolerance: float
) -> None:
    if not isinstance(feature_map, HasFeaturesOfLengths):
        return
    lengths = [1, rollouts.contexts.rollout_length - 1]
    for length, found in zip(lengths, feature_map.of_lengths(rollouts, lengths), strict=True):
        require(
            part,
            _same(found, feature_map(rollouts.first(length)), tolerance),
            "of_lengths gives the features of rollouts.first(length)",
        )


def _check_independence(
    part: Part,
    features: Features,
    rollouts: Rollouts,
    feature_map: FeatureMap,
    tolerance: float,
) -> None:
    tokens = rollouts.tokens.clone()
    tokens[:, 0] = tokens[:, 0].roll(1, 0)  # another context's rollout
    other = feature_map(replace(rollouts, tokens=tokens))
    require(
        part,
        close(other.samples[:, 1:], features.samples[:, 1:], tolerance),
        "features of a rollout do not depend on the other rollouts "
        "(or claim() says that the gradient is biased)",
    )
    require(
        part,
        close(other.references, features.references, tolerance),
        "features of references do not depend on the rollouts "
        "(or claim() says that the gradient is biased)",
    )


def _same(a: Features, b: Features, tolerance: float) -> bool:
    return close(a.samples, b.samples, tolerance) and close(a.references, b.references, tolerance)
