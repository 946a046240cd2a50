"""Transform `whiten_context_paper`: whitening by a context's own rollouts, as in the paper."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from pydantic import Field

from ebft.lazy import Tensor
from ebft.parts.part import Claim, Part
from ebft.rollout.records import Features
from ebft.transforms.gram import TOLERANCE, gram_roots


class WhitenContextPaper(Part):
    """φ̃ = (Σ̂_c†)^{1/2} φ with Σ̂_c = 1/n Σ_j φ_j φ_jᵀ, for both rollouts and references.

    The Gram matrix of the whitened rollouts is n times a projection. So the dot products of
    linearly independent rollouts are 0, and the diversity term penalises only duplicates. The paper
    uses the cosine for alignment (`reward.alignment_similarity: cosine`).
    """

    tolerance: float = Field(
        TOLERANCE, gt=0, lt=1, description="smallest singular value kept, relative to the largest"
    )

    def claim(self) -> Claim:
        return Claim(False, "each rollout's features depend on the context's other rollouts")

    def __call__(self, features: Features) -> Features:
        samples, references = whiten_context(
            features.samples, features.references, tolerance=self.tolerance
        )
        # Each dimension now mixes all layers.
        return replace(features, samples=samples, references=references, layers=1, stacked=False)


def whiten_context(
    samples: Float[Tensor, "P n D"],
    references: Float[Tensor, "P m D"],
    *,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "P n D"], Float[Tensor, "P m D"]]:
    """Returns whitened samples and references, from the n × n Gram matrix, not the D × D Σ̂_c.

    With XXᵀ = U S² Uᵀ: X̃ = √n U S⁻¹ Uᵀ X, and for a reference y: ỹ = √n Xᵀ U S⁻³ Uᵀ X y. The
    component of y outside the rollouts' span is lost, as with any pseudo-inverse.
    """
    inverse, U = gram_roots(samples, tolerance=tolerance)
    x, y, root_n = samples.double(), references.double(), samples.shape[1] ** 0.5
    whitened = root_n * (U * inverse[:, None]) @ (U.mT @ x)
    inside = (y @ x.mT) @ (U * inverse[:, None] ** 3) @ U.mT
    return whitened.to(samples.dtype), (root_n * inside @ x).to(references.dtype)
