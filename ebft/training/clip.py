"""Gradient clipping, also of gradients that are divided over processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Float[Tensor, ""]:
    """Scales all gradients alike so that their norm is at most `largest`; returns it as it was."""
    updated = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([cast(Tensor, p.grad) for p in updated])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(updated, largest, norm)
    return norm
