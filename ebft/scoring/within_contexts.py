"""How rewards differ between the rollouts of one context: statistics of documents, and figures.

Rollouts of one context are comparable, while rewards of different contexts differ for reasons that
the policy cannot change. Each function returns sums for each document, so that a figure of them has
an interval over documents (`ebft.scoring.estimators.influence_values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rank_agreement(
    ours: Float[Tensor, "P n"], theirs: Float[Tensor, "P n"], row: Int[Tensor, " P"], documents: int
) -> Float[Tensor, "B 3"]:
    """Returns, for the pairs of rollouts of one context: concordant − discordant pairs, those that
    are not tied in ours, and those not tied in theirs, summed for each document."""
    first = (ours.double()[:, :, None] - ours.double()[:, None]).sign()
    second = (theirs.double()[:, :, None] - theirs.double()[:, None]).sign()
    sums = [x.sum((1, 2)) / 2 for x in (first * second, first.abs(), second.abs())]
    return _by_document(torch.stack(sums, 1), row, documents)


def kendall_tau(sums: Sequence[float]) -> float:
    """τ_b of the summed pairs, (C − D)/√(T₁ T₂) (Kendall 1945); NaN if one has only ties."""
    agreement, ours, theirs = sums
    return agreement / sqrt(ours * theirs) if ours * theirs > 0 else nan


def reward_spread(
    rewards: Float[Tensor, "P 2 n"], row: Int[Tensor, " P"], documents: int
) -> Float[Tensor, "B 3"]:
    """Returns the sums over a document's contexts of v, of v₁v₂ and of 1, where v₁ and v₂ are the
    variances of the rewards of two independent sets of rollouts, and v is their mean.

    v₁v₂ estimates v² without bias, which the square of v would overestimate.
    """
    v = rewards.double().var(2)
    sums = torch.stack([v.mean(1), v.prod(1), torch.ones_like(v[:, 0])], 1)
    return _by_document(sums, row, documents)


def effective_share(sums: Sequence[float]) -> float:
    """(Σv)²/(P Σv²): the share of contexts with a spread of rewards, if all others had none and
    all of these the same; NaN if none has any. Kish's effective sample size, as a share."""
    total, squares, contexts = sums
    return total**2 / (contexts * squares) if squares > 0 else nan


def _by_document(
    values: Float[Tensor, "P 3"], row: Int[Tensor, " P"], documents: int
) -> Float[Tensor, "B 3"]:
    values, row = values.cpu(), row.cpu()
    return values.new_zeros(documents, values.shape[1]).index_add_(0, row, values)
