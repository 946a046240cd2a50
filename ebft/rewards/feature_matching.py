"""Reward `feature_matching`: similarity to the reference minus that to the other rollouts."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from ebft.parts.part import Claim
from ebft.rewards.similarity import SimilarityReward, kernel_terms
from ebft.rollout.records import Features, Rollouts, Terms
from ebft.scoring.kernels import Kernel, cosine, linear


class FeatureMatching(SimilarityReward):
    """r_j = α_a · 2 φ_j·φ_y − α_d · 2/(n−1) Σ_{j'≠j} φ_j·φ_j'   (paper, equation 7).

    With α_a = α_d = 1 the policy gradient with this reward is an unbiased estimate of −∇L_CFM.
    With several references, φ_y is their mean. Of layers that are stacked, a cosine is the mean of
    the layers' cosines.
    """

    alignment_similarity: Literal["dot", "cosine"] = Field(
        "dot", description="similarity to the reference; the paper uses cosine of whitened features"
    )
    diversity_similarity: Literal["dot", "cosine"] = Field(
        "dot", description="similarity to the other rollouts"
    )

    def claim(self) -> Claim:
        if self.alignment != self.diversity:
            return Claim(False, "alignment ≠ diversity: not the gradient of L_CFM")
        if self.alignment_similarity != self.diversity_similarity:
            return Claim(False, "two similarities, which agree only on features of norm 1")
        of = " of the features' directions" if self.alignment_similarity == "cosine" else ""
        scale = "" if self.alignment == 1 else f", times {self.alignment:g}"
        return Claim(True, f"its expected policy gradient is −∇L_CFM{of}{scale}")

    def __call__(self, rollouts: Rollouts, features: Features) -> Terms:  # noqa: ARG002
        layers = features.layers if features.stacked else 1
        similarities: dict[str, Kernel] = {"dot": linear, "cosine": partial(cosine, blocks=layers)}
        return kernel_terms(
            features,
            similarities[self.alignment_similarity],
            similarities[self.diversity_similarity],
            alignment=self.alignment,
            diversity=self.diversity,
        )
