"""How features are spread in their space: what a feature-matching reward has to work with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def effective_rank(features: Float[Tensor, "N D"]) -> float:
    """exp of the entropy of the covariance's normalised eigenvalues (Roy & Vetterli 2007).

    Between 1 and min(N − 1, D); 0 if all features are equal.
    """
    x = features.double()
    x = x - x.mean(0)
    # The smaller of the two Gram matrices has all eigenvalues that are not zero.
    gram = x @ x.mT if x.shape[0] <= x.shape[1] else x.mT @ x
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values / total
    return float(torch.special.entr(share).sum().exp())


def anisotropy(features: Float[Tensor, "N D"]) -> float:
    """The mean cosine of two different rows, in [−1/(N−1), 1] (Ethayarajh 2019).

    Near 1, all features point the same way and their dot products say little about them. Raises
    `ValueError` for fewer than two rows.
    """
    N = len(features)
    if N < 2:
        raise ValueError(f"anisotropy compares features with each other; there are {N}")
    unit = normalize(features.double(), dim=-1)
    return float((unit.sum(0).square().sum() - unit.square().sum()) / (N * (N - 1)))
