"""Transform `l2`: features of norm 1."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Literal

from jaxtyping import Float
from pydantic import Field

from ebft.lazy import Tensor, torch
from ebft.parts.part import Claim, Part
from ebft.rollout.records import Features


class L2(Part):
    """φ̃ = φ/‖φ‖ over all of φ, or for each layer's block separately; zero stays zero."""

    over: Literal["joint", "layer"] = Field(
        "joint", description="joint: ‖φ̃‖ = 1; layer: each of L blocks has norm 1/√L, so ‖φ̃‖ = 1"
    )

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout's own features")

    def __call__(self, features: Features) -> Features:
        blocks = features.layers if self.over == "layer" else 1
        return replace(
            features,
            samples=l2(features.samples, blocks),
            references=l2(features.references, blocks),
        )


def l2(phi: Float[Tensor, "*N D"], blocks: int = 1) -> Float[Tensor, "*N D"]:
    """Normalises each of `blocks` equal parts of the last dimension to norm 1/√blocks."""
    parts = phi.view(*phi.shape[:-1], blocks, -1)
    return torch.nn.functional.normalize(parts, dim=-1).flatten(-2) / sqrt(blocks)
