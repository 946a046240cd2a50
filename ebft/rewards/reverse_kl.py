"""Reward `reverse_kl`: how much likelier a teacher finds each token than the policy does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ebft.lazy import no_grad, torch
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Features, Rollouts, Terms

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ReverseKl(RewardPart):
    """r_t = log p_T(ŷ_t | c, ŷ_<t) − log p_θ(ŷ_t | c, ŷ_<t), for each token of a rollout, in nats.

    The rewards of a rollout add up to an estimate of −KL(p_θ ‖ p_T), whose gradient they give:
    on-policy distillation, without features. Both distributions are at the sampler's temperature;
    p_θ is the one that sampled.
    """

    teacher: str = Field(
        description="a local HF folder or a hub id, of a model with the same tokens"
    )

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def per_token(self) -> bool:
        return True

    def method(self) -> str:
        return "distillation"

    def other_models(self) -> tuple[str, ...]:
        return (self.teacher,)

    def claim(self) -> Claim:
        return Claim(True, "the gradient of −KL(policy ‖ teacher)")

    def build(self, resources: Resources) -> ReverseKlReward:
        return ReverseKlReward(resources, resources.load_other(self.teacher))


class ReverseKlReward:
    """`ReverseKl` with its teacher."""

    def __init__(self, resources: Resources, teacher: PreTrainedModel) -> None:
        self._resources, self._teacher = resources, teacher

    @no_grad
    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        from ebft.models.forward import autocast
        from ebft.models.tree_log_probs import tree_log_probs

        with autocast(self._resources.device, self._resources.precision):
            parts = [tree_log_probs(self._teacher, part).rollouts for _, part in rollouts.split()]
        gain = (torch.cat(parts) - rollouts.log_probs).where(rollouts.mask, 0)  # [P, n, G]
        return Terms.of_unary(gain.transpose(1, 2).flatten(0, 1))
