"""Terms of a reward that is 2k(rollout, reference) − 2k(rollout, rollout'), for any kernel k."""

from __future__ import annotations

from pydantic import Field, model_validator

from ebft.parts.kinds import RewardPart
from ebft.rollout.records import Features, Terms
from ebft.scoring.kernels import Kernel, to_references


class SimilarityReward(RewardPart):
    """The options that rewards of this form share: the weights of their two terms."""

    alignment: float = Field(
        1.0, ge=0, description="α_a, weight of the similarity to the reference"
    )
    diversity: float = Field(
        1.0, ge=0, description="α_d, weight of the similarity to the other rollouts"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> SimilarityReward:
        if self.alignment == self.diversity == 0:
            raise ValueError("alignment and diversity are both 0: nothing is left of the reward")
        return self

    def pairwise(self) -> bool:
        """Whether the reward compares rollouts with each other, and so needs n > 1."""
        return self.diversity > 0

    def uses_features(self) -> bool:
        return True


def kernel_terms(
    features: Features,
    to_reference: Kernel,
    to_rollout: Kernel,
    *,
    alignment: float,
    diversity: float,
) -> Terms:
    """Returns u_j = 2 α_a mean_m k(φ_j, φ_y,m) and k_jj' = −2 α_d k'(φ_j, φ_j')."""
    pairwise = -2 * diversity * to_rollout(features.samples, features.samples)
    pairwise.diagonal(dim1=1, dim2=2).zero_()
    return Terms(2 * alignment * to_references(features, to_reference), pairwise)
