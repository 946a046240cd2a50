"""Whether generations get more or less random as they go on (Braverman et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EntropyDrift:
    """−log p at each generated position, on average, and its slope.

    `entropy[t]` estimates the policy's conditional entropy at position t of its own generations,
    in nats; `cross_entropy[t]` is the same of the reference's tokens. For a calibrated policy both
    agree at every position. `slope` is the least-squares slope of entropy over positions, in nats
    a token: ground truth has none to speak of.
    """

    entropy: Float[Tensor, " G"]
    cross_entropy: Float[Tensor, " G"]
    slope: float


def entropy_drift(
    rollouts: Float[Tensor, "P n G"],
    mask: Bool[Tensor, "P n G"],
    references: Float[Tensor, "P G"],
    reference_mask: Bool[Tensor, "P G"],
) -> EntropyDrift:
    """From log-probs, at temperature 1, of rollouts and of references under the same policy.

    Positions that no rollout or no reference reaches are left out at the end. Raises `ValueError`
    if fewer than two are left, which have no slope.
    """
    reached = mask.flatten(0, 1).any(0) & reference_mask.any(0)
    G = int(reached.cumprod(0).sum())
    if G < 2:
        raise ValueError(f"a drift needs two positions that rollouts and references reach, not {G}")
    entropy = _mean(-rollouts.flatten(0, 1)[:, :G], mask.flatten(0, 1)[:, :G])
    cross_entropy = _mean(-references[:, :G], reference_mask[:, :G])
    position = torch.arange(G, dtype=torch.float64, device=entropy.device)
    centred = position - position.mean()
    slope = float((centred * entropy).sum() / centred.square().sum())
    return EntropyDrift(entropy, cross_entropy, slope)


def _mean(values: Float[Tensor, "N G"], mask: Bool[Tensor, "N G"]) -> Float[Tensor, " G"]:
    return values.double().where(mask, 0).sum(0) / mask.sum(0)
