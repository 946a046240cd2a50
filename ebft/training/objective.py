"""The objective: L = L_FM + γ·L_CE, as a loss whose gradient is an unbiased estimate of ∇L.

Rollouts come from the sampler's distribution q, and the gradient is that of the policy's p. The two
differ by rounding if the sampler is the policy itself, and by more if it is an engine with another
precision. With w = p(ŷ)/q(ŷ), E_q[w A ∇log p] = E_p[A ∇log p] for an advantage of that rollout
alone. A pairwise reward term compares a rollout with others from q, which are not reweighted:
diversity is then that of q's rollouts, with a bias of the order of p − q.
"""

from __future__ import annotations

from math import log
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from pydantic import Field

from ebft.lazy import Tensor, torch
from ebft.options import Options
from ebft.parts.part import Claim
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.transfer import move


class ImportanceOptions(Options):
    """Importance weights: the probability under the trainer divided by that under the sampler."""

    level: Literal["off", "token", "sequence"] = Field(
        "off",
        description="off: no weights; token: one for each token, with less noise and a bias of "
        "second order; sequence: one for the whole rollout, unbiased without a cap, "
        "except for pairwise terms",
    )
    cap: float | None = Field(2.0, gt=1, description="largest ratio that is kept; null: no cap")
    beyond_cap: Literal["truncate", "mask"] = Field(
        "truncate", description="truncate: larger ratios become the cap; mask: they become 0"
    )


class RatioStatistics(NamedTuple):
    """Statistics of a step's ratios p/q before the cap: the mean (1 in expectation), the largest,
    the fraction beyond the cap, and the effective sample size (Σw)²/Σw² as a fraction of their
    number."""

    mean: float
    largest: float
    beyond_cap: float
    effective: float


class Importance(NamedTuple):
    """The weights of tokens (H = G) or of rollouts (H = 1), and the ratios p/q within the mask.

    Both are None if `level` is off.
    """

    weights: Float[Tensor, "P n H"] | None
    ratios: Float[Tensor, " N"] | None


def importance_weights(
    trainer: Float[Tensor, "P n G"], rollouts: Rollouts, options: ImportanceOptions
) -> Importance:
    """Returns the policy gradient's weights of rollouts; `trainer` is the policy's log p."""
    if options.level == "off":
        return Importance(None, None)
    ratio = importance_ratios(trainer, rollouts.log_probs, rollouts.mask, options.level)
    counted = ratio[rollouts.mask] if options.level == "token" else ratio.flatten()
    return Importance(cap_ratios(ratio, options), counted)


def importance_ratios(
    trainer: Float[Tensor, "P n G"],
    sampler: Float[Tensor, "P n G"],
    mask: Bool[Tensor, "P n G"],
    level: Literal["token", "sequence"],
) -> Float[Tensor, "P n H"]:
    """p/q of each token (H = G; 1 outside the mask), or of each rollout (H = 1), detached."""
    # Not multiplied by the mask: log-probs after a rollout's end may be infinite.
    difference = (trainer - sampler).where(mask, 0).detach()
    return (difference.sum(-1, keepdim=True) if level == "sequence" else difference).exp()


def cap_ratios(ratio: Float[Tensor, "P n H"], options: ImportanceOptions) -> Float[Tensor, "P n H"]:
    """Returns the ratios with the cap applied."""
    if options.cap is None:
        return ratio
    if options.beyond_cap == "mask":
        return ratio.where(ratio <= options.cap, 0.0)
    return ratio.clamp(max=options.cap)


def ratio_statistics(ratio: Float[Tensor, " N"], cap: float | None) -> RatioStatistics:
    """Returns statistics of all of a step's ratios; without a cap, `beyond_cap` is 0."""
    ratio = ratio.double()
    beyond = torch.zeros_like(ratio) if cap is None else (ratio > cap).double()
    effective = ratio.sum().square() / ratio.square().sum() / ratio.numel()
    return RatioStatistics(
        float(ratio.mean()), float(ratio.max()), float(beyond.mean()), float(effective)
    )


Reduction = Literal["sum", "token_mean"]
TokenWeights = Literal["equal", "probability", "entropy"]

LIKELIEST = 20
"""Tokens of the entropy that `token_weights: entropy` weighs with (EAFT's value)."""


class ObjectiveOptions(Options):
    """How the policy gradient and the cross-entropy become one loss."""

    gamma: float = Field(ge=0, description="γ, the weight of the cross-entropy")
    reduction: Reduction = Field(
        "sum",
        description="sum: log p of a rollout, the exact gradient of L_FM; token_mean: divided by "
        "the rollout's tokens, as in the authors' code",
    )
    cross_entropy_tokens: Literal["completion", "all"] = Field(
        "completion",
        description="tokens of the cross-entropy: after the prompt (in a conversation the "
        "assistant's turns with the token that ends each), or all",
    )
    token_weights: TokenWeights = Field(
        "equal",
        description="weights of tokens in the cross-entropy's gradient, computed without one. "
        "equal: the gradient of L_CE; probability: p of the token (DFT); entropy: of its "
        f"distribution over the {LIKELIEST} likeliest tokens, from 0 to 1 (EAFT)",
    )
    importance: ImportanceOptions = Field(
        ImportanceOptions(), description="weights for samplers that differ from the policy"
    )

    @property
    def needs_entropies(self) -> bool:
        """Whether the cross-entropy's weights are made of the documents' entropies."""
        return self.token_weights == "entropy"

    def claim(self, *, rollouts_end: bool, pairwise: bool) -> Claim:
        """Whether the gradient is that of L_FM + γ·L_CE on average with these options.
        `rollouts_end`: rollouts may have different lengths; `pairwise`: the reward compares them
        with each other."""
        importance = self.importance
        if self.reduction == "token_mean" and rollouts_end:
            return Claim(False, "reduction = token_mean divides a rollout by its own length")
        if importance.level == "token":
            return Claim(False, "importance.level = token leaves out the tokens before each")
        if importance.level == "sequence" and importance.cap is not None:
            return Claim(False, f"importance.cap = {importance.cap:g} caps weights; null: no cap")
        if importance.level == "sequence" and pairwise:
            return Claim(False, "importance.level = sequence weighs one rollout of each pair alone")
        if self.token_weights != "equal" and self.gamma > 0:
            return Claim(
                False, f"token_weights = {self.token_weights}: γ weighs another loss than L_CE"
            )
        return Claim(True, "every rollout has the same weight")


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

    Its gradient is an unbiased estimate of ∇L_CFM if A is a reward minus a baseline that does not
    depend on rollout j. `contexts` is the number of contexts of the whole optimizer step, of which
    these P are a part, so that micro-batches add up to the same loss. If rewards are per token,
    each token has its own advantage. `weights` are importance weights of tokens (H = G) or of
    rollouts (H = 1).
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
    """Returns Σ_{t ≥ s} A_t for each token s, from a row of advantages for each of G tokens.

    A token does not affect the rewards of earlier tokens. Leaving these out of its advantage
    reduces noise and does not change the expected gradient, that of −Σ_t E[r_t].
    """
    by_token = advantages.view(-1, tokens, advantages.shape[1]).transpose(1, 2)
    return by_token.flip(-1).cumsum(-1).flip(-1)


def cross_entropy_loss(
    log_probs: Float[Tensor, "B S"],
    mask: Bool[Tensor, "B S"],
    *,
    tokens: int,
    weights: Float[Tensor, "B S"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean negative log-prob, in nats, of the documents' tokens under `mask`.

    `tokens` is the number of such tokens in the whole optimizer step. With `weights` it is the
    surrogate of which the gradient is that of each token's log-prob, times its weight.
    """
    if weights is not None:
        log_probs = log_probs * weights.detach()
    return -(log_probs * mask).sum() / tokens


def token_weights(
    log_probs: Float[Tensor, "B S"], entropies: Float[Tensor, "B S"], kind: TokenWeights
) -> Float[Tensor, "B S"] | None:
    """Returns the weights of the cross-entropy's tokens; None if all are equal.

    `probability` is DFT (Wu et al., arXiv 2508.05629, equation 9): ∇ is that of −p, so tokens that
    the policy finds unlikely hardly count. `entropy` is EAFT (Diao et al., arXiv 2601.02151): the
    entropy over the `LIKELIEST` tokens, divided by its largest value, so tokens of which the policy
    is sure hardly count, right or wrong.
    """
    if kind == "equal":
        return None
    return log_probs.exp() if kind == "probability" else entropies / log(LIKELIEST)


def cross_entropy_mask(
    contexts: Contexts, tokens: Literal["completion", "all"]
) -> Bool[Tensor, "B S"]:
    """Returns which document tokens the cross-entropy is computed on: not on the tokens that the
    tokenizer puts before every text, nor on the first, which has no log-prob."""
    mask = torch.zeros(contexts.tokens.shape, dtype=torch.bool)
    for row, document in enumerate(contexts.documents):
        whole = ((0, document.tokens.numel()),)
        for start, end in document.completions if tokens == "completion" else whole:
            mask[row, max(start, document.begins, 1) : end] = True
    return move(mask, contexts.tokens.device)
