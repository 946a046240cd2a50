"""Transform `whiten_context_authors`: whitening as in the authors' code, for comparison."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from jaxtyping import Float
from pydantic import Field

from ebft.lazy import Tensor, torch
from ebft.parts.part import Claim, Part
from ebft.rollout.records import Features
from ebft.transforms.gram import TOLERANCE, gram_roots
from ebft.transforms.l2 import l2


class WhitenContextAuthors(Part):
    """X̃ = W X with W = (XXᵀ)^{-1/2}, and the reference of rollout j is (Σ_i W_ji) φ_y.

    W acts on the n rollouts, not on feature space. Applied to n copies of a reference it only
    rescales them, differently for each rollout, so the returned references are `paired`. As with
    the paper's whitening, linearly independent rollouts become orthogonal. Stacked layers
    (`combine: stack`) are whitened separately and scaled by 1/√layers.
    """

    tolerance: float = Field(
        TOLERANCE, gt=0, lt=1, description="smallest singular value kept, relative to the largest"
    )
    normalize: bool = Field(False, description="L2-normalise the whitened features")

    def claim(self) -> Claim:
        return Claim(False, "each rollout's features depend on the context's other rollouts")

    def __call__(self, features: Features) -> Features:
        layers = features.layers if features.stacked else 1
        each = [
            whiten_rows(*blocks, tolerance=self.tolerance)
            for blocks in zip(
                features.samples.chunk(layers, -1), features.references.chunk(layers, -1),
                strict=True,
            )
        ]  # fmt: skip
        samples, references = (torch.cat(blocks, -1) for blocks in zip(*each, strict=True))
        if self.normalize:
            samples, references = l2(samples, layers), l2(references, layers)
        else:
            samples, references = samples / sqrt(layers), references / sqrt(layers)
        return replace(features, samples=samples, references=references, paired=True)


def whiten_rows(
    samples: Float[Tensor, "P n D"],
    references: Float[Tensor, "P m D"],
    *,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "P n D"], Float[Tensor, "P n D"]]:
    """Returns W X and W 1 φ̄_yᵀ, with the mean φ̄_y over m references."""
    inverse, U = gram_roots(samples, tolerance=tolerance)
    W = (U * inverse[:, None]) @ U.mT
    reference = references.double().mean(1, keepdim=True)
    rows = W.sum(-1, keepdim=True) * reference
    return (W @ samples.double()).to(samples.dtype), rows.to(references.dtype)
