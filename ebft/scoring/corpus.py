"""Corpus-level figures, such as BLEU, as means over documents, so that they have intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def influence_values(
    statistics: Float[Tensor, "B K"], figure: Callable[[Sequence[float]], float]
) -> Float[Tensor, " B"]:
    """Returns a value for each document; their mean is exactly `figure` of the summed statistics.

    v_i = θ + (B − 1)(θ̄ − θ_i), where θ_i leaves document i out and θ̄ is the mean of the θ_i. The
    standard error of the mean of v is the jackknife's of θ (Efron & Stein 1981). Paired differences
    of two corpora's values give the standard error of the difference.
    """
    total = statistics.sum(0)
    theta, B = figure(total.tolist()), len(statistics)
    if B == 1:
        return torch.tensor([theta], dtype=torch.float64)
    without = torch.tensor(
        [figure((total - row).tolist()) for row in statistics], dtype=torch.float64
    )
    return theta + (B - 1) * (without.mean() - without)
