"""`check_reward`: are unary and pairwise terms separate, and is `pairwise()` true?"""

from __future__ import annotations

from dataclasses import replace

import torch

from ebft.parts.interfaces import Reward
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Part, Resources
from ebft.rollout.records import Contexts, Features, Rollouts, Terms
from ebft.testing.common import (
    Unchanged,
    check_options,
    check_tensor,
    close,
    contexts_of_both_plans,
    require,
)
from ebft.testing.tiny import tiny_resources, tiny_rollouts

D = 6


def check_reward(
    part: RewardPart, resources: Resources | None = None, *, tolerance: float = 1e-6
) -> None:
    """Checks a reward on random rollouts and features of both plans.

    It checks shapes, finiteness and no gradients; a diagonal of zeros; that u_j and k_jj' depend
    only on the rollouts they name, and are permuted with them; that there are pairwise terms if and
    only if `pairwise()` says so, and n = 1 works if not; and that features are used only if
    `uses_features()` says so. A claim of an unbiased gradient is not checked, because the objective
    is not known. Raises `AssertionError`.
    """
    check_options(part, RewardPart)
    resources = tiny_resources() if resources is None else resources
    vocabulary = resources.policy.config.vocab_size
    reward = part.build(resources)
    require(part, isinstance(reward, Reward), "build() returns something to call")
    pairs = False
    for contexts in contexts_of_both_plans(resources).values():
        rollouts = tiny_rollouts(contexts, n=4, vocabulary=vocabulary)
        features = _features(contexts, n=4)
        unchanged = Unchanged(rollouts, features)
        terms = reward(rollouts, features)
        require(part, bool(unchanged), "it does not modify its input")
        _check_shapes(part, terms, 4, contexts)
        if not part.uses_features():
            require(
                part,
                _same(reward(rollouts, None), terms, tolerance),
                "uses_features() says False, so it gives the same without features (None)",
            )
        again = part.build(resources)(rollouts, features)
        require(part, _same(again, terms, tolerance), "built again, it gives the same")
        _check_who_touches_what(part, reward, rollouts, features, terms, tolerance)
        pairs = pairs or bool(terms.pairwise.any())
        if not part.pairwise():
            alone = tiny_rollouts(contexts, n=1, vocabulary=vocabulary)
            _check_shapes(part, reward(alone, _features(contexts, n=1)), 1, contexts)
    require(
        part,
        part.pairwise() == pairs,
        f"pairwise() says {part.pairwise()}, and pairwise terms are "
        + ("not all zero" if pairs else "all zero"),
    )


def _features(contexts: Contexts, n: int) -> Features:
    generator = torch.Generator().manual_seed(0)
    samples, references = (
        torch.randn(len(contexts), k, D, generator=generator, dtype=torch.float64) for k in (n, 1)
    )
    device = contexts.tokens.device
    return Features(samples.to(device), references.to(device))


def _check_shapes(part: RewardPart, terms: Terms, n: int, contexts: Contexts) -> None:
    require(part, isinstance(terms, Terms), "it returns ebft.Terms")
    P = len(contexts) * (contexts.rollout_length if part.per_token() else 1)
    check_tensor(part, "terms.unary", terms.unary, (P, n))
    check_tensor(part, "terms.pairwise", terms.pairwise, (P, n, n))
    diagonal = terms.pairwise.diagonal(dim1=1, dim2=2)
    require(part, not diagonal.any(), "the diagonal of terms.pairwise is zero")


def _check_who_touches_what(
    part: Part,
    reward: Reward,
    rollouts: Rollouts,
    features: Features,
    terms: Terms,
    tolerance: float,
) -> None:
    flipped = reward(
        replace(
            rollouts,
            tokens=rollouts.tokens.flip(1), mask=rollouts.mask.flip(1),
            log_probs=rollouts.log_probs.flip(1),
        ),
        replace(features, samples=features.samples.flip(1)),
    )  # fmt: skip
    require(
        part,
        _same(Terms(flipped.unary.flip(1), flipped.pairwise.flip(1, 2)), terms, tolerance),
        "rollouts in another order have their terms in that order",
    )
    tokens, mask, samples = (
        rollouts.tokens.clone(), rollouts.mask.clone(), features.samples.clone()
    )  # fmt: skip
    # The first rollout becomes another context's.
    for changed in (tokens, mask, samples):
        changed[:, 0] = changed[:, 0].roll(1, 0)
    other = reward(replace(rollouts, tokens=tokens, mask=mask), replace(features, samples=samples))
    require(
        part,
        close(other.unary[:, 1:], terms.unary[:, 1:], tolerance),
        "u_j depends on rollout j alone; what compares rollouts belongs in terms.pairwise",
    )
    require(
        part,
        close(other.pairwise[:, 1:, 1:], terms.pairwise[:, 1:, 1:], tolerance),
        "k_jj' depends on rollouts j and j' alone",
    )


def _same(a: Terms, b: Terms, tolerance: float) -> bool:
    return close(a.unary, b.unary, tolerance) and close(a.pairwise, b.pairwise, tolerance)
