"""`check_token_baseline`: are the advantages of tokens valid, and is the claim about bias true?"""

from __future__ import annotations

import torch
from torch import Tensor

from ebft.parts.interfaces import TokenBaseline
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Resources
from ebft.parts.stateful import Stateful
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features, Prefixes, Terms
from ebft.testing.common import Unchanged, check_tensor, close, require

P, G, F, D = 3, 4, 5, 2


def check_token_baseline(part: BaselinePart, resources: Resources, *, tolerance: float) -> None:
    """Checks a baseline of single tokens for n = 1 … 4, over several steps as in a run.

    It checks shapes and finiteness; a state that can be saved and loaded; and the claim: unbiased
    means that no b_jt = r_j − A_jt depends on rollout j's features, or on its states after token t,
    and biased that some b_jt does. Raises `AssertionError`.
    """
    depends = []
    for n in (1, 2, 3, 4):
        baseline = part.build(resources)
        require(part, isinstance(baseline, TokenBaseline), "build() returns what has of_tokens")
        for step in range(3):
            terms, prefixes = random_prefixes(n, seed=step)
            unchanged = Unchanged(terms, prefixes)
            advantages = baseline.of_tokens(terms, prefixes)
            require(part, bool(unchanged), "it does not modify its input")
            check_tensor(part, f"advantages with n = {n}", advantages, (P, n, G))
        _check_state(part, baseline, n, resources)
        depends += [
            _depends_on(part, n, j, t, resources, earlier=earlier, tolerance=tolerance)
            for j in range(n)
            for t in range(G)
            for earlier in (0, 2)
        ]
    claim = part.claim()
    if claim is not None and claim.unbiased:
        require(
            part,
            not any(depends),
            "claims to be unbiased: b_jt = r_j − A_jt depends on nothing of rollout j after t",
        )
    elif claim is not None:
        require(
            part,
            any(depends),
            "claims to be biased: some b_jt = r_j − A_jt depends on rollout j after t",
        )


def random_prefixes(n: int, seed: int = 0) -> tuple[Terms, Prefixes]:
    """Returns terms of feature matching, in float64, and the prefixes that belong to them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    length = torch.randint(1, G + 1, (P, n), generator=generator)
    mask = torch.arange(G) < length[..., None]
    return _given(normal(P, n, G, F), mask, normal(P, n, D), normal(P, 1, D))


def _given(
    states: Tensor, mask: Tensor, samples: Tensor, references: Tensor
) -> tuple[Terms, Prefixes]:
    features, reward = Features(samples, references), FeatureMatching()
    terms: Terms = reward(None, features)  # type: ignore[arg-type]  # it uses features alone
    return terms, Prefixes(states, mask, samples, reward.direction(features))


def _check_state(part: BaselinePart, baseline: object, n: int, resources: Resources) -> None:
    if not isinstance(baseline, Stateful):
        return
    assert isinstance(baseline, TokenBaseline)
    resumed = part.build(resources)
    resumed.load_state_dict(baseline.state_dict())
    given = random_prefixes(n, seed=9)
    require(
        part,
        torch.equal(resumed.of_tokens(*given), baseline.of_tokens(*given)),
        "with the state loaded, it continues as the one that saved it",
    )


def _depends_on(
    part: BaselinePart,
    n: int,
    j: int,
    t: int,
    resources: Resources,
    *,
    earlier: int,
    tolerance: float,
) -> bool:
    """Returns whether b_jt changes with rollout j's features and its states after token t, after so
    many `earlier` steps."""
    (_, one), (_, other) = random_prefixes(n, seed=1), random_prefixes(n, seed=2)
    references = torch.ones(P, 1, D, dtype=torch.float64)
    states, samples = one.states.clone(), one.features.clone()
    states[:, j, t + 1 :], samples[:, j] = other.states[:, j, t + 1 :], other.features[:, j]
    mask = torch.ones_like(one.mask)
    values = []
    for terms, prefixes in (
        _given(one.states, mask, one.features, references),
        _given(states, mask, samples, references),
    ):
        baseline: TokenBaseline = part.build(resources)
        for step in range(earlier):
            baseline.of_tokens(*random_prefixes(n, seed=20 + step))
        advantages = baseline.of_tokens(terms, prefixes)
        values.append((terms.reward()[..., None] - advantages)[:, j, t])
    return not close(values[0], values[1], tolerance)
