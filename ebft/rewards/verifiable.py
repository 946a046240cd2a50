"""Reward `verifiable`: a score of each rollout's text, as reinforcement learning from verifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import cast

import torch
from pydantic import Field, field_validator

from ebft.config.located import suggest
from ebft.parts import Claim, Part, Resources
from ebft.rewards.function_body import function_body
from ebft.rewards.run_python import run_python
from ebft.rollout.records import Features, Rollouts, Terms


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a score sees: the context's text, a rollout after it, the reference, and the check.

    `check` is the document's own: unit tests, an expected answer; empty if the data has none.
    """

    context: str
    rollout: str
    reference: str
    check: str


Score = Callable[[Attempt], float]


def exact_match(attempt: Attempt) -> float:
    """1 if the rollout is the reference, white space around them aside."""
    return float(attempt.rollout.strip() == attempt.reference.strip())


def unit_tests(attempt: Attempt) -> float:
    """1 if context + rollout, followed by the document's check, runs to its end without error."""
    program = f"{attempt.context}{attempt.rollout}\n\n{attempt.check}\n"
    return float(run_python(program).passed)


def function_tests(attempt: Attempt) -> float:
    """`unit_tests` of the function that the context begins: what the rollout has after the
    function's end is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)))


SCORES: dict[str, Score] = {
    "exact_match": exact_match,
    "unit_tests": unit_tests,
    "function_tests": function_tests,
}


class Verifiable(Part):
    """r_j = score(rollout j), by any function of texts."""

    score: str = Field(
        "exact_match",
        description="exact_match, unit_tests, function_tests (what comes after the function is cut "
        "off), or the dotted path of a function: Attempt → number",
    )
    workers: int = Field(2, ge=1, description="rollouts that are scored at a time")

    @field_validator("score")
    @classmethod
    def _exists(cls, score: str) -> str:
        find_score(score)
        return score

    def pairwise(self) -> bool:
        return False

    def uses_features(self) -> bool:
        return False

    def claim(self) -> Claim:
        return Claim(True, "each rollout is scored by itself: the gradient of the expected score")

    def build(self, resources: Resources) -> VerifiableReward:
        return VerifiableReward(find_score(self.score), self.workers, resources)


class VerifiableReward:
    """`Verifiable` bound to the tokenizer that turns rollouts into texts."""

    def __init__(self, score: Score, workers: int, resources: Resources) -> None:
        self._score, self._workers, self._tokenizer = score, workers, resources.tokenizer

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:  # noqa: ARG002
        attempts = self._attempts(rollouts)
        with ThreadPoolExecutor(self._workers) as pool:
            scores = list(pool.map(self._score, attempts))
        unary = torch.tensor(scores, dtype=torch.float32, device=rollouts.tokens.device)
        return Terms.of_unary(unary.view(rollouts.tokens.shape[:2]))

    def _attempts(self, rollouts: Rollouts) -> Sequence[Attempt]:
        c, attempts = rollouts.contexts, []
        for p in range(len(c)):
            row = int(c.row[p])
            context = self._text(c.tokens[row, : int(c.anchor[p])])
            reference = self._text(c.reference[p][c.reference_mask[p]])
            for tokens, mask in zip(rollouts.tokens[p], rollouts.mask[p], strict=True):
                rollout = self._text(tokens[mask])
                attempts.append(Attempt(context, rollout, reference, c.documents[row].check))
        return attempts

    def _text(self, tokens: torch.Tensor) -> str:
        text = self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        return cast(str, text)


def find_score(name: str) -> Score:
    """The score that `name` names. Raises `ValueError` if there is none."""
    if name in SCORES:
        return SCORES[name]
    if "." not in name and ":" not in name:
        raise ValueError(f"no score is named {name!r}{suggest(name, SCORES)}")
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {name!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is not a function")
    return cast(Score, found)
