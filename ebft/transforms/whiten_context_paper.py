"""Transform `whiten_context_paper`: whitening by a context's own rollouts, as in the paper."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ebft.parts import Claim, Part
from ebft.rollout.records import Features
from ebft.transforms.gram import TOLERANCE, gram_roots


class WhitenContextPaper(Part):
    """φ̃ = (Σ̂_c†)^{1/2} φ with Σ̂_c = 1/n Σ_j φ_j φ_jᵀ, for rollouts and references alike.

    After it the rollouts' Gram matrix is n times a projection: for linearly independent rollouts
    their dot products are 0 and the diversity term sees nothing but duplicates. The paper takes
    the cosine for alignment (`reward.alignment_similarity: cosine`).
    """

    tolerance: float = Field(
        TOLERANCE, gt=0, lt=1, description="smallest singular value kept, of the largest"
    )

    def claim(self) -> Claim:
        return Claim(False, "each rollout's features depend on the context's other rollouts")

    def __call__(self, features: Features) -> Features:
        samples, references = whiten_context(
            features.samples, features.references, tolerance=self.tolerance
        )
        # A reference's dimensions are made of all of its layers now.
        return replace(features, samples=samples, references=references, layers=1, stacked=False)


def whiten_context(
    samples: Float[Tensor, "P n D"],
    references: Float[Tensor, "P m D"],
    *,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "P n D"], Float[Tensor, "P m D"]]:
    """Whitened samples and references, by the n × n Gram matrix instead of Σ̂_c's D × D.

    With XXᵀ = U S² Uᵀ: X̃ = √n U S⁻¹ Uᵀ X, and for a reference y: ỹ = √n Xᵀ U S⁻³ Uᵀ X y. What of
    y lies outside the rollouts' span is lost, as with any pseudo-inverse.
    """
    inverse, U = gram_roots(samples, tolerance=tolerance)
    x, y, root_n = samples.double(), references.double(), samples.shape[1] ** 0.5
    whitened = root_n * (U * inverse[:, None]) @ (U.mT @ x)
    inside = (y @ x.mT) @ (U * inverse[:, None] ** 3) @ U.mT
    return whitened.to(samples.dtype), (root_n * inside @ x).to(references.dtype)
