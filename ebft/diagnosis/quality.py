"""What rewards are compared with: figures of rollouts that say how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.rewards.token_overlap import ngram_f1
from ebft.rollout.records import Rollouts
from ebft.verifiers.attempts import attempts_of
from ebft.verifiers.find import Verification, Verifying

if TYPE_CHECKING:
    from ebft.parts.interfaces import Plan
    from ebft.parts.part import Resources

Quality = Callable[[Rollouts], Float[Tensor, "P n"]]
"""A figure of each rollout."""


def qualities_of(
    reward: object, evaluators: Iterable[object], plan: Plan, resources: Resources
) -> Mapping[str, Quality]:
    """What rewards are compared with: the overlap with the reference, and the verifier of one of
    the evaluators if rollouts are completions and the reward is not the verifier itself."""
    found: dict[str, Quality] = {"token overlap": overlap}
    if isinstance(reward, Verifying):
        return found
    verifying = next((part for part in evaluators if isinstance(part, Verifying)), None)
    if plan.stop_at_eos and verifying is not None:
        found["verifier"] = partial(_verified, verifying.verification(), resources)
    return found


def _verified(
    verification: Verification, resources: Resources, rollouts: Rollouts
) -> Float[Tensor, "P n"]:
    values = verification(attempts_of(rollouts, resources.tokenizer))
    return torch.tensor(values, dtype=torch.float64).view(rollouts.tokens.shape[:2])


def overlap(rollouts: Rollouts) -> Float[Tensor, "P n"]:
    """F1 of the tokens of rollout and reference."""
    c = rollouts.contexts
    return ngram_f1(
        rollouts.tokens, rollouts.mask, c.reference[:, None], c.reference_mask[:, None], 1
    )
