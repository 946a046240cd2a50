"""What rewards are compared with: figures of rollouts that say how good they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    from ebft.parts.part import Resources
    from ebft.runs.options import FineTuneOptions

Quality = Callable[[Rollouts], Float[Tensor, "P n"]]
"""A figure of each rollout."""


def qualities_of(options: FineTuneOptions, resources: Resources) -> Mapping[str, Quality]:
    """What rewards are compared with: the overlap with the reference, and the recipe's verifier if
    rollouts are completions and the reward is not the verifier itself."""
    found: dict[str, Quality] = {"token overlap": overlap}
    if isinstance(options.parts().get("reward"), Verifying):
        return found
    plan = options.plan.build(resources)
    parts = options.evaluation.parts().values()
    verifying = next((part for part in parts if isinstance(part, Verifying)), None)
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
