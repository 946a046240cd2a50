"""The objective: L = L_FM + γ·L_CE, as a loss whose gradient is an unbiased estimate of ∇L."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ebft.importance import ImportanceOptions
from ebft.parts import Claim, Options
from ebft.rollout.records import Contexts

Reduction = Literal["sum", "token_mean"]


class ObjectiveOptions(Options):
    """How the policy gradient and the cross-entropy become one loss."""

    gamma: float = Field(ge=0, description="γ, the weight of the cross-entropy")
    reduction: Reduction = Field(
        "sum",
        description="sum: log p of a rollout, the exact gradient of L_FM; token_mean: divided by "
        "the rollout's tokens, as the authors' code scales it",
    )
    cross_entropy_tokens: Literal["completion", "all"] = Field(
        "completion", description="tokens under the cross-entropy: after the prompt, or all"
    )
    importance: ImportanceOptions = Field(
        ImportanceOptions(), description="weights for samplers that are not quite the policy"
    )

    def claim(self, *, rollouts_end: bool, pairwise: bool) -> Claim:
        """Whether it leaves the policy gradient unbiased. `rollouts_end`: rollouts may have
        different lengths; `pairwise`: the reward compares them with each other."""
        importance = self.importance
        if self.reduction == "token_mean" and rollouts_end:
            return Claim(False, "reduction = token_mean divides a rollout by its own length")
        if importance.level == "token":
            return Claim(False, "importance.level = token leaves out the tokens before each")
        if importance.level == "sequence" and importance.cap is not None:
            return Claim(False, f"importance.cap = {importance.cap:g} cuts weights off; null: not")
        if importance.level == "sequence" and pairwise:
            return Claim(False, "importance.level = sequence weighs one rollout of each pair alone")
        return Claim(True, "every rollout counts alike")


def policy_gradient_loss(
    log_probs: Float[Tensor, "P n G"],
    mask: Bool[Tensor, "P n G"],
    advantages: Float[Tensor, "P n"] | Float[Tensor, "P n G"],
    *,
    contexts: int,
    reduction: Reduction,
    weights: Float[Tensor, "P n H"] | None = None,
) -> Float[Tensor, ""]:
    """−1/contexts · Σ_c 1/n Σ_j A_j log p(ŷ_j), the REINFORCE surrogate (paper, equation 8).

    Its gradient is an unbiased estimate of ∇L_CFM when A is a reward minus a baseline that does
    not touch rollout j. `contexts` counts those of the whole optimizer step, of which these P are
    a part, so that parts add up to the same loss however the step is divided. A token's own
    advantage takes the place of its rollout's where rewards are per token. `weights` are those
    of `ebft.importance`, of tokens (H = G) or of rollouts (H = 1).
    """
    if weights is not None:
        log_probs = log_probs * weights.detach()
    if advantages.ndim == 2:
        advantages = advantages[..., None]
    per_rollout = (advantages.detach() * log_probs * mask).sum(-1)
    if reduction == "token_mean":
        per_rollout = per_rollout / mask.sum(-1)
    return -per_rollout.mean(1).sum() / contexts


def advantages_to_go(advantages: Float[Tensor, "R n"], tokens: int) -> Float[Tensor, "P n G"]:
    """Σ_{t ≥ s} A_t for each token s, from a row of advantages for each of a context's G tokens.

    A token has no part in what was rewarded before it: leaving that out of its advantage takes
    noise away and keeps the expected gradient, that of −Σ_t E[r_t].
    """
    by_token = advantages.view(-1, tokens, advantages.shape[1]).transpose(1, 2)
    return by_token.flip(-1).cumsum(-1).flip(-1)


def cross_entropy_loss(
    log_probs: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"], *, tokens: int
) -> Float[Tensor, ""]:
    """Mean negative log-prob, in nats, of the documents' tokens under `mask`.

    `tokens` counts those of the whole optimizer step.
    """
    return -(log_probs * mask).sum() / tokens


def cross_entropy_mask(
    contexts: Contexts, tokens: Literal["completion", "all"]
) -> Bool[Tensor, "B S"]:
    """Which tokens of the documents the cross-entropy is taken on: none that stands before every
    text, and the first has no prediction."""
    device = contexts.tokens.device
    prompts = [
        max(document.prompt_length if tokens == "completion" else 0, document.begins)
        for document in contexts.documents
    ]
    first = torch.tensor(prompts, device=device).clamp(min=1)
    column = torch.arange(contexts.tokens.shape[1], device=device)
    return (column >= first[:, None]) & (column < contexts.lengths[:, None])
