"""Reward `comet`: COMET's score of each rollout as a translation (RLVR)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from ebft.lazy import torch
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Features, Rollouts, Terms
from ebft.verifiers.attempts import StopTexts, attempts_of, cut
from ebft_comet.options import CometOptions


class CometReward(CometOptions, RewardPart):
    """r_j = COMET(source, rollout j, reference).

    Source: Rei et al. 2020, COMET; the default model is COMET-22, Rei et al. 2022.
    """

    stop: StopTexts = Field(
        ("\n",), description="a translation ends before the first of these texts"
    )

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def claim(self) -> Claim:
        if self.dtype == "float16":
            return Claim(False, "in float16 a score depends, by rounding, on its batch")
        return Claim(True, "each rollout is scored by itself: the gradient of the expected score")

    def build(self, resources: Resources) -> CometRewardOfTexts:
        return CometRewardOfTexts(self, resources)


class CometRewardOfTexts:
    """`CometReward` bound to the policy's tokenizer and a COMET model."""

    def __init__(self, options: CometReward, resources: Resources) -> None:
        self._options, self._tokenizer = options, resources.tokenizer
        self._scorer = options.scorer()

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        attempts = [
            replace(one, rollout=cut(one.rollout.strip(), self._options.stop))
            for one in attempts_of(rollouts, self._tokenizer)
        ]
        scores = self._scorer(self._options.segments(attempts))
        unary = torch.tensor(scores, dtype=torch.float32, device=rollouts.tokens.device)
        return Terms.of_unary(unary.view(rollouts.tokens.shape[:2]))
