"""Whether generations get more or less random as they go on (Braverman et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_surprise(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The mean of −log p over each context's tokens, and how many those are.

    Of a policy's own tokens it estimates the policy's conditional entropy; of a reference's it is
    the cross-entropy. For a calibrated policy both agree.
    """
    tokens = mask.sum((1, 2)).double()
    return surprise.double().where(mask, 0).sum((1, 2)) / tokens.clamp(min=1), tokens


def slope_over_position(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The least-squares slope of each context's −log p over the position, a token; and its weight.

    The weight is the positions' sum of squares about their mean, so the weighted mean of slopes is
    the least-squares slope within contexts; if all have the same positions, that of the mean curve.
    Both are 0 for a context whose tokens are all at one position.
    """
    position = torch.arange(mask.shape[-1], dtype=torch.float64, device=mask.device)
    count = mask.sum((1, 2)).clamp(min=1)
    centred = (position - ((position * mask).sum((1, 2)) / count)[:, None, None]) * mask
    spread = centred.square().sum((1, 2))
    product = (centred * surprise.double().where(mask, 0)).sum((1, 2))
    return torch.where(spread > 0, product / spread.clamp(min=1e-12), 0), spread
