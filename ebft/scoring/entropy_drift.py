"""Whether generations get more or less random with their length (Braverman et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_surprise(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Returns the mean of −log p over each context's tokens, and the number of tokens.

    For the policy's own tokens it estimates the policy's conditional entropy; for a reference's
    tokens it is the cross-entropy. For a calibrated policy both are equal.
    """
    tokens = mask.sum((1, 2)).double()
    return surprise.double().where(mask, 0).sum((1, 2)) / tokens.clamp(min=1), tokens


def slope_over_position(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Returns the least-squares slope of −log p over the position in tokens for each context, and
    its weight.

    The weight is the sum of squares of the positions about their mean, so the weighted mean of
    slopes is the least-squares slope within contexts. If all contexts have the same positions, it
    is the slope of the mean curve. Both are 0 for a context whose tokens are all at one position.
    """
    position = torch.arange(mask.shape[-1], dtype=torch.float64, device=mask.device)
    count = mask.sum((1, 2)).clamp(min=1)
    centred = (position - ((position * mask).sum((1, 2)) / count)[:, None, None]) * mask
    spread = centred.square().sum((1, 2))
    product = (centred * surprise.double().where(mask, 0)).sum((1, 2))
    return torch.where(spread > 0, product / spread.clamp(min=1e-12), 0), spread
