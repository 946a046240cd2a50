"""What the tokens of a tree see of each other, as a few numbers instead of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sees:
    """Trunk tokens see the trunk up to themselves; branch q of row b sees `anchors[b, q]` trunk
    tokens and its own tokens up to itself.

    The keys are the S = `trunk` tokens, then `steps` tokens of each of the Q branches: branch
    after branch, with all of these tokens as queries too, or, when `decoding`, step after step,
    with each branch's newest token as the only queries. Branches that a row does not have are
    those with anchor 0: they see themselves, for the softmax of nothing is NaN.
    """

    trunk: int
    anchors: Int[Tensor, "B Q"]
    steps: int
    decoding: bool = False

    @property
    def branches(self) -> int:
        return self.anchors.shape[1]

    def mask(self) -> Bool[Tensor, "B 1 T K"]:
        """The same as a dense mask, True where the query (row) sees the key (column)."""
        device = self.anchors.device
        B, Q = self.anchors.shape
        key = torch.arange(self.trunk, device=device)
        branch = torch.arange(Q, device=device)
        step = torch.arange(self.steps, device=device)
        if self.decoding:
            prefix = key < self.anchors[..., None]
            itself = torch.eye(Q, dtype=torch.bool, device=device).repeat(1, self.steps)
            return torch.cat([prefix, itself.expand(B, -1, -1)], -1)[:, None]
        causal = (key <= key[:, None]).expand(B, -1, -1)
        above = torch.nn.functional.pad(causal, (0, Q * self.steps))
        anchors = self.anchors.repeat_interleave(self.steps, 1)
        branch, step = branch.repeat_interleave(self.steps), step.repeat(Q)
        own = (branch == branch[:, None]) & (step <= step[:, None])
        below = torch.cat([key < anchors[..., None], own.expand(B, -1, -1)], -1)
        return torch.cat([above, below], 1)[:, None]


def sees_trunk(rows: int, length: int, device: torch.device) -> Sees:
    """Causal attention over documents without branches."""
    return Sees(length, torch.zeros(rows, 0, dtype=torch.long, device=device), steps=0)
