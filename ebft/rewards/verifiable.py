"""Reward `verifiable`: a verifier's score of each rollout's text (RLVR)."""

from __future__ import annotations

from pydantic import Field

from ebft.lazy import torch
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Features, Rollouts, Terms
from ebft.sandbox import SandboxOptions
from ebft.verifiers.attempts import attempts_of
from ebft.verifiers.find import (
    VERIFIER,
    Verification,
    VerifierName,
    find_verifier,
    missing_for,
    verify_attempts,
)
from ebft.verifiers.functions import Verifier


class Verifiable(RewardPart):
    """r_j = verifier(rollout j), where the verifier is any function of texts."""

    verifier: VerifierName = Field("exact_match", description=VERIFIER)
    sandbox: SandboxOptions = Field(
        SandboxOptions(), description="how code that the policy writes is run"
    )
    workers: int = Field(2, ge=1, description="rollouts that are verified at the same time")

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def claim(self) -> Claim:
        return Claim(True, "each rollout is scored by itself: the gradient of the expected score")

    def missing(self) -> str | None:
        return missing_for(self.verifier)

    def verification(self) -> Verification:
        return Verification(self.verifier, self.sandbox, self.workers)

    def build(self, resources: Resources) -> VerifiableReward:
        return VerifiableReward(find_verifier(self.verifier, self.sandbox), self.workers, resources)


class VerifiableReward:
    """`Verifiable` bound to the tokenizer that turns rollouts into texts."""

    def __init__(self, verifier: Verifier, workers: int, resources: Resources) -> None:
        self._verifier, self._workers, self._tokenizer = verifier, workers, resources.tokenizer

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        attempts = attempts_of(rollouts, self._tokenizer)
        values = verify_attempts(self._verifier, attempts, self._workers)
        unary = torch.tensor(values, dtype=torch.float32, device=rollouts.tokens.device)
        return Terms.of_unary(unary.view(rollouts.tokens.shape[:2]))
