"""Reward `feature_matching`: alignment with the reference minus likeness to the other rollouts."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ebft.parts import Claim, Part
from ebft.rollout.records import Features, Rollouts, Terms


class FeatureMatching(Part):
    """r_j = α_a · 2 φ_j·φ_y − α_d · 2/(n−1) Σ_{j'≠j} φ_j·φ_j'   (paper, equation 7).

    With α_a = α_d = 1 the policy gradient with this reward is an unbiased estimate of −∇L_CFM.
    """

    alignment: float = Field(1.0, ge=0, description="α_a, weight of the likeness to the reference")
    diversity: float = Field(
        1.0, ge=0, description="α_d, weight of the likeness to the other rollouts"
    )

    def pairwise(self) -> bool:
        """Whether the reward compares rollouts with each other, and so needs n > 1."""
        return self.diversity > 0

    def claim(self) -> Claim:
        if self.alignment == self.diversity:
            scale = "" if self.alignment == 1 else f", times {self.alignment:g}"
            return Claim(True, f"its expected policy gradient is −∇L_CFM{scale}")
        return Claim(False, "alignment ≠ diversity: the gradient is that of another objective")

    def __call__(self, rollouts: Rollouts, features: Features) -> Terms:  # noqa: ARG002
        return feature_matching_terms(
            features.samples,
            features.references,
            alignment=self.alignment,
            diversity=self.diversity,
        )


def feature_matching_terms(
    samples: Float[Tensor, "P n D"],
    references: Float[Tensor, "P m D"],
    *,
    alignment: float = 1.0,
    diversity: float = 1.0,
) -> Terms:
    """u_j = 2 α_a φ_j·φ̄_y with the mean over m references, k_jj' = −2 α_d φ_j·φ_j'."""
    unary = 2 * alignment * (samples @ references.mean(1, keepdim=True).mT)[..., 0]
    pairwise = -2 * diversity * (samples @ samples.mT)
    pairwise.diagonal(dim1=1, dim2=2).zero_()
    return Terms(unary, pairwise)
