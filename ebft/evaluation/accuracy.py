"""Evaluator `accuracy`: how often the policy's completions pass a verifier."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt, model_validator

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, OfContexts, evenly, per_document
from ebft.lazy import no_grad, torch
from ebft.parts.measurements import Measurement
from ebft.parts.part import Resources
from ebft.plans.completion import Completion
from ebft.rollout.records import Document, Rollouts
from ebft.sandbox import SandboxOptions
from ebft.scoring.estimators import pass_at_k
from ebft.verifiers.attempts import StopTexts, attempts_of, shorten
from ebft.verifiers.find import (
    VERIFIER,
    Verification,
    VerifierName,
    find_verifier,
    missing_for,
    unavailable,
    verify_attempts,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


log = logging.getLogger("ebft")


class Accuracy(LabelledPart):
    """The share of documents whose greedy completion passes, and pass@k of n sampled ones.

    An attempt passes if the verifier returns 1. Each document counts once, with its own estimate of
    pass@k. Without the compiler or the interpreter of a language, its programs are not measured,
    and the log says so.
    """

    verifier: VerifierName = Field("unit_tests", description=VERIFIER)
    rollout_length: PositiveInt = Field(256, description="largest number of tokens of a completion")
    greedy: bool = Field(True, description="also measure the greedy completion")
    n: int = Field(16, ge=0, description="sampled completions per document; 0: none")
    k: tuple[PositiveInt, ...] = Field((1, 4, 16), description="the k of pass@k, at most n")
    temperature: float = Field(1.0, gt=0, description="temperature of the sampled completions")
    stop: StopTexts | None = Field(
        None,
        description="a completion ends before the first of these texts, e.g. '\\ndef '; null: the "
        "benchmark's own, if the data source knows them",
    )
    sandbox: SandboxOptions = Field(
        SandboxOptions(), description="how programs of the policy are run"
    )
    workers: PositiveInt = Field(2, description="completions that are verified at the same time")

    @model_validator(mode="after")
    def _there_are_enough(self) -> Accuracy:
        if self.n and self.k and max(self.k) > self.n:
            raise ValueError(f"k = {list(self.k)}: pass@{max(self.k)} needs n >= {max(self.k)}")
        if not self.greedy and not (self.n and self.k):
            raise ValueError("greedy is false and n or k is 0: nothing would be measured")
        return self

    def rollout_plan(self) -> Completion:
        return Completion(rollout_length=self.rollout_length)

    def missing(self) -> str | None:
        return missing_for(self.verifier)

    def verification(self) -> Verification:
        return Verification(self.verifier, self.sandbox, self.workers, self.stop)

    def build(self, resources: Resources) -> AccuracyEvaluator:
        return AccuracyEvaluator(self, resources)


class AccuracyEvaluator:
    """`Accuracy` bound to the policy and its tokenizer."""

    def __init__(self, options: Accuracy, resources: Resources) -> None:
        self._options, self._tokenizer = options, resources.tokenizer
        self._drawn: list[tuple[EvaluationRollouts, dict[str, int]]] = []
        if why := unavailable(options.verifier, options.sandbox):
            log.warning("%s: not measured: %s", options.verifier, why)
            return
        self._verifier = find_verifier(options.verifier, options.sandbox)
        plan = Completion(rollout_length=options.rollout_length)
        if options.greedy:
            likeliest = EvaluationRollouts(plan, resources, n=1, top_k=1)
            self._drawn.append((likeliest, {"accuracy (greedy)": 1}))
        if options.n and options.k:
            sampled = EvaluationRollouts(
                plan, resources, n=options.n, temperature=options.temperature
            )
            self._drawn.append((sampled, {f"pass@{k}": k for k in sorted(set(options.k))}))

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        measured = []
        for sample, names in self._drawn:
            rollouts, shares = sample(policy, documents), partial(self._shares, names.values())
            each = per_document(documents, rollouts, shares, figures=len(names))
            measured += [
                Measurement(name, "share of documents", *share, share=True)
                for name, share in zip(names, each, strict=True)
            ]
        return measured

    def _shares(self, each_k: Iterable[int], rollouts: Rollouts) -> list[OfContexts]:
        """Returns pass@k of each context's rollouts, for each k."""
        passed = self._passed(rollouts)
        return [
            evenly(torch.tensor([pass_at_k(len(row), sum(row), k) for row in passed]))
            for k in each_k
        ]

    def _passed(self, rollouts: Rollouts) -> list[list[bool]]:
        """Returns whether each of the n rollouts passes, for each context."""
        attempts = [
            shorten(attempt, self._options.stop)
            for attempt in attempts_of(rollouts, self._tokenizer)
        ]
        values = verify_attempts(self._verifier, attempts, self._options.workers)
        n = rollouts.tokens.shape[1]
        return [[value == 1 for value in values[at : at + n]] for at in range(0, len(values), n)]
