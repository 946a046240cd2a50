"""Importance weights: rollouts came from the sampler's distribution q, the gradient is of p.

The two differ by rounding when the sampler is the policy itself, by more when it is an engine of
another precision. With w = p(ŷ)/q(ŷ), E_q[w A ∇log p] = E_p[A ∇log p] for an advantage of that
rollout alone. A pairwise reward term compares it with other rollouts from q, which stay as they
were drawn: diversity is then from q's rollouts, and the bias is of the order of p − q.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ebft.parts import Options
from ebft.rollout.records import Rollouts


class ImportanceOptions(Options):
    """Weights of rollouts by how likely they are for the trainer compared with the sampler."""

    level: Literal["off", "token", "sequence"] = Field(
        "off",
        description="off: no weights; token: one for each token, less noise and a bias of second "
        "order; sequence: one for the whole rollout, unbiased without a cap, "
        "but for terms of pairs",
    )
    cap: float | None = Field(
        2.0, gt=1, description="largest ratio that is used as it is; null: any is"
    )
    beyond_cap: Literal["truncate", "mask"] = Field(
        "truncate", description="truncate: larger ratios become the cap; mask: they become 0"
    )


class RatioStatistics(NamedTuple):
    """Ratios p/q of a step before the cap: their mean (1 on average), their largest, the fraction
    beyond the cap, and the effective sample size (Σw)²/Σw² as a fraction of their number."""

    mean: float
    largest: float
    beyond_cap: float
    effective: float


class Importance(NamedTuple):
    """The weights of tokens (H = G) or of rollouts (H = 1), and the ratios p/q of all that count.

    Both None if rollouts are not weighed.
    """

    weights: Float[Tensor, "P n H"] | None
    ratios: Float[Tensor, " N"] | None


def importance_weights(
    trainer: Float[Tensor, "P n G"], rollouts: Rollouts, options: ImportanceOptions
) -> Importance:
    """What rollouts are weighed with in the policy gradient; `trainer` is the policy's log p."""
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
    """p/q of each token (H = G; 1 outside the mask), or of each whole rollout (H = 1).

    No gradient goes through them.
    """
    # Not times the mask: what a sampler has after a rollout's end may be infinite.
    difference = (trainer - sampler).where(mask, 0).detach()
    return (difference.sum(-1, keepdim=True) if level == "sequence" else difference).exp()


def cap_ratios(ratio: Float[Tensor, "P n H"], options: ImportanceOptions) -> Float[Tensor, "P n H"]:
    """The ratios with the cap applied to those beyond it."""
    if options.cap is None:
        return ratio
    if options.beyond_cap == "mask":
        return ratio.where(ratio <= options.cap, 0.0)
    return ratio.clamp(max=options.cap)


def ratio_statistics(ratio: Float[Tensor, " N"], cap: float | None) -> RatioStatistics:
    """Statistics of all of a step's ratios; without a cap, none is beyond it."""
    ratio = ratio.double()
    beyond = torch.zeros_like(ratio) if cap is None else (ratio > cap).double()
    effective = ratio.sum().square() / ratio.square().sum() / ratio.numel()
    return RatioStatistics(
        float(ratio.mean()), float(ratio.max()), float(beyond.mean()), float(effective)
    )
