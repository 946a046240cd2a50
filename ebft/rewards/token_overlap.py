"""Reward `token_overlap`: how many n-grams of tokens a rollout shares with its reference."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from pydantic import Field

from ebft.lazy import Tensor, torch
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Claim
from ebft.rollout.records import Features, Rollouts, Terms


class TokenOverlap(RewardPart):
    """r_j = F1 of the n-grams of rollout and reference, counted with multiplicity, in [0, 1].

    0 if either is shorter than an n-gram. Needs no features.
    """

    order: int = Field(1, ge=1, description="tokens of an n-gram")

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def claim(self) -> Claim:
        return Claim(True, "each rollout is scored by itself: the gradient of the expected score")

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        contexts = rollouts.contexts
        return Terms.of_unary(
            ngram_f1(
                rollouts.tokens, rollouts.mask,
                contexts.reference[:, None], contexts.reference_mask[:, None], self.order,
            )
        )  # fmt: skip


def ngram_f1(
    tokens: Int[Tensor, "P n G"],
    mask: Bool[Tensor, "P n G"],
    reference: Int[Tensor, "P 1 H"],
    reference_mask: Bool[Tensor, "P 1 H"],
    order: int,
) -> Float[Tensor, "P n"]:
    """Returns 2·matches / (n-grams of rollout + n-grams of reference); masks are prefixes."""
    if min(tokens.shape[-1], reference.shape[-1]) < order:
        return torch.zeros(tokens.shape[:2], device=tokens.device)
    grams, there = tokens.unfold(-1, order, 1), mask[..., order - 1 :]
    wanted, wanted_there = reference.unfold(-1, order, 1), reference_mask[..., order - 1 :]
    alike = (grams[..., :, None, :] == grams[..., None, :, :]).all(-1)
    # An n-gram's second occurrence matches only if the reference has two of it, and so on.
    earlier = torch.ones_like(alike).tril(-1) & there[..., None, :]
    occurrence = (alike & earlier).sum(-1)
    in_reference = (grams[..., :, None, :] == wanted[..., None, :, :]).all(-1)
    available = (in_reference & wanted_there[..., None, :]).sum(-1)
    matches = ((available > occurrence) & there).sum(-1)
    return 2 * matches / (there.sum(-1) + wanted_there.sum(-1)).clamp(min=1)
