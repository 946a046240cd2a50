"""Reward `verifiable`: a score of each rollout's text, as reinforcement learning from verifiers."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator

from ebft.parts import Claim, Part, Resources
from ebft.rewards.scores import Score, attempts_of, find_score, is_score, score_attempts
from ebft.rollout.records import Features, Rollouts, Terms
from ebft.sandbox import SandboxOptions


class Verifiable(Part):
    """r_j = score(rollout j), by any function of texts."""

    score: str = Field(
        "exact_match",
        description="exact_match, final_answer, unit_tests, function_tests (what comes after the "
        "function is cut off), or the dotted path of a function: Attempt → number",
    )
    sandbox: SandboxOptions = Field(
        SandboxOptions(), description="how unit_tests runs what the policy writes"
    )
    workers: int = Field(2, ge=1, description="rollouts that are scored at a time")

    @field_validator("score")
    @classmethod
    def _exists(cls, score: str) -> str:
        return is_score(score)

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def claim(self) -> Claim:
        return Claim(True, "each rollout is scored by itself: the gradient of the expected score")

    def build(self, resources: Resources) -> VerifiableReward:
        return VerifiableReward(find_score(self.score, self.sandbox), self.workers, resources)


class VerifiableReward:
    """`Verifiable` bound to the tokenizer that turns rollouts into texts."""

    def __init__(self, score: Score, workers: int, resources: Resources) -> None:
        self._score, self._workers, self._tokenizer = score, workers, resources.tokenizer

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        attempts = attempts_of(rollouts, self._tokenizer)
        scores = score_attempts(self._score, attempts, self._workers)
        unary = torch.tensor(scores, dtype=torch.float32, device=rollouts.tokens.device)
        return Terms.of_unary(unary.view(rollouts.tokens.shape[:2]))
