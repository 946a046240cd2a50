"""The run of `ebft noise`: loads once, measures each alternative, and shows what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import set_seed

from ebft.console import Bar
from ebft.diagnosis.advice import Advice, Run, advise, run_for
from ebft.diagnosis.alternatives import Alternative
from ebft.diagnosis.costs import Costs
from ebft.diagnosis.effect import progress_per_step
from ebft.diagnosis.evidence import (
    Measurer,
    RolloutEvidence,
    evidence_of_documents,
    gather_rollouts,
)
from ebft.diagnosis.figures import Figures, figures_of
from ebft.diagnosis.quality import qualities_of
from ebft.diagnosis.sets import Scorers
from ebft.diagnosis.subject import Subject
from ebft.errors import MemoryShortError, UserError, is_out_of_memory
from ebft.evaluation.measure import clusters
from ebft.files import check_writable
from ebft.models.layout import Depth
from ebft.parts.kinds import RewardPart, SamplerPart
from ebft.rollout.records import Rollouts
from ebft.runs.setup import depth_of, make_optimizer
from ebft.training.gradients import trained_weights
from ebft.training.objective import ObjectiveOptions

GRADIENTS = 3
"""Gradients of a document with rollouts: of two sets, and of their union."""
WARM_UP = 16
"""Documents, at least, of the earlier steps that parts with state have seen: of so few that a step
has, as by default, a regression or a moment would know too little."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was found of an alternative. `runs` are those that would show the effect: with the
    recipe's values, and with those that are recommended."""

    alternative: Alternative
    figures: Figures
    advice: Advice
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of all alternatives; `rate` in FLOPs per second, 0 if it is not known."""

    results: Sequence[Result]
    documents: int
    clusters: int
    seed: int
    effect: float
    seconds: float
    rate: float


def diagnose(
    alternatives: Sequence[Alternative], *, documents: int, effect: float, warm_up: int = WARM_UP
) -> Findings:
    """Measures all alternatives on the same documents, the first that a run would be trained on.

    Parts with state see the documents that follow before, `warm_up` of them or those of a step.
    Raises `UserError` for a model, data or parts that cannot be used, `NumericalError` for values
    that are not finite, and `MemoryShortError`.
    """
    options = alternatives[0].options
    for one in alternatives:
        if missing := one.options.missing_for_parts():
            raise UserError(*missing)
    check_writable(options.output_dir)
    set_seed(options.seed)
    try:
        others = max(warm_up, *(one.options.training.documents_per_step for one in alternatives))
        depths = [depth_of(one.options) for one in alternatives]
        deepest = Depth(*(max(tokens) for tokens in zip(*depths, strict=True)))
        subject = Subject.load(options, documents, others=others, depth=deepest)
        for one in alternatives[1:]:
            subject.check(one)
        return Diagnosis(subject).run(alternatives, effect)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryShortError(
            "out of memory: set training.micro_batch=1, training.gradient_checkpointing=true, or a "
            "smaller documents.length or sampler.n"
        ) from error


@dataclass(slots=True)
class Diagnosis:
    """Measures alternatives of a subject, and keeps what they share."""

    subject: Subject
    drawn: list[tuple[object, list[Rollouts]]] = field(default_factory=list)
    cross_entropy: dict[ObjectiveOptions, Float[Tensor, "K D"]] = field(default_factory=dict)
    flop: float = 0.0
    seconds: float = 0.0

    def run(self, alternatives: Sequence[Alternative], effect: float) -> Findings:
        """Measures the alternatives in order."""
        total = len(self.subject.documents) * (
            1 + GRADIENTS * sum(a.options.sampler is not None for a in alternatives)
        )
        found = []
        with Bar(total=total, desc="gradients", unit="gradient", leave=False) as bar:
            for one in alternatives:
                bar.set_postfix_str(one.label)
                found.append((one, *self._measure(one, bar)))
        rate = self.flop / self.seconds if self.flop else 0.0
        results = [
            self._result(one, figures, costs, effect=effect, rate=rate)
            for one, figures, costs in found
        ]
        subject = self.subject
        return Findings(
            results=results,
            documents=len(subject.documents),
            clusters=len(set(clusters(subject.documents).tolist())),
            seed=subject.resources.seed,
            effect=effect,
            seconds=self.seconds,
            rate=rate,
        )

    def _measure(self, one: Alternative, bar: Bar) -> tuple[Figures, Costs | None]:
        options, training, began = one.options, one.options.training, perf_counter()
        measurer = Measurer(
            self.subject.resources.policy, self.subject.sketch, self.subject.resources.precision,
            training.gradient_checkpointing, advance=lambda: bar.update(),
        )  # fmt: skip
        contexts = options.plan.build(self.subject.resources)(self.subject.documents).to(
            self.subject.resources.device
        )
        # γ is no part of the gradient that is kept.
        objective = options.objective.model_copy(update={"gamma": 1.0})
        new = objective not in self.cross_entropy
        if new:
            self.cross_entropy[objective] = measurer.cross_entropy(contexts, objective)
        cross_entropy, rollouts = self.cross_entropy[objective], None
        if options.sampler is not None:
            rollouts = self._rollouts(one, measurer, cross_entropy)
        estimate, costs = one.estimate(), None
        if estimate is not None:
            length = None if rollouts is None else rollouts.length
            shared = None if rollouts is None else rollouts.shared
            costs = Costs.of(estimate, contexts, length=length, shared=shared)
            self.flop += new * costs.of_cross_entropy()
            if options.sampler is not None and rollouts is not None:
                union = rollouts.union is not None
                self.flop += costs.of_measuring(options.sampler.n, union=union)
        self.seconds += perf_counter() - began
        figures = figures_of(
            evidence_of_documents(cross_entropy, clusters(self.subject.documents), rollouts),
            n=0 if options.sampler is None else options.sampler.n,
            documents_per_step=training.documents_per_step,
            flop=None if costs is None else costs.of_training,
            follows_law=follows_law(options.sampler, options.reward),
        )
        return figures, costs

    def _rollouts(
        self, one: Alternative, measurer: Measurer, cross_entropy: Float[Tensor, "K D"]
    ) -> RolloutEvidence:
        options, subject = one.options, self.subject
        assert options.baseline is not None
        scorers = Scorers(partial(one.build, subject.resources))
        if scorers.have_state:  # as after earlier steps
            for rollouts in self._drawn(one, earlier=True):
                scorers.score(rollouts)
        claim = options.baseline.claim()
        return gather_rollouts(
            measurer, scorers, self._drawn(one, earlier=False), cross_entropy, options.objective,
            unbiased=claim is not None and claim.unbiased,
            qualities=qualities_of(
                options.reward, options.evaluation.parts().values(),
                options.plan.build(subject.resources), subject.resources,
            ),
        )  # fmt: skip

    def _drawn(self, one: Alternative, *, earlier: bool) -> Iterator[Rollouts]:
        """The rollouts of each step, or of each `earlier` one, kept for alternatives that sample in
        the same way."""
        options, subject = one.options, self.subject
        key = options.plan, options.sampler, options.training.documents_per_step, earlier
        kept = next((rollouts for other, rollouts in self.drawn if other == key), None)
        if kept is None:
            kept = []
            for rollouts in subject.draw(one, subject.others if earlier else subject.documents):
                kept.append(rollouts)
                yield rollouts
            self.drawn.append((key, kept))
        else:
            yield from kept

    def _result(
        self,
        one: Alternative,
        figures: Figures,
        costs: Costs | None,
        *,
        effect: float,
        rate: float,
    ) -> Result:
        options, training = one.options, one.options.training
        n = 0 if options.sampler is None else options.sampler.n
        step = training.documents_per_step
        advice = advise(figures, n=n, documents_per_step=step, gamma=options.objective.gamma)
        if figures.gap is None or figures.gap <= 0:
            return Result(one, figures, advice, [])
        better = int(advice.keys.get("sampler.n", n))
        larger = int(advice.keys.get("training.documents_per_step", step))
        # The optimizer makes a state for each weight: it gets small ones.
        progress = partial(
            self._progress, lambda weights: make_optimizer(options.optimizer, weights),
            training.clip_grad_norm,
        )  # fmt: skip
        runs = [
            run_for(
                effect * figures.gap, figures.at(m),
                n=m, documents_per_step=B, progress=progress, rate=rate,
                flop=None if costs is None else costs.of_training(m),
            )
            for m, B in dict.fromkeys([(n, step), (better, larger)])
        ]  # fmt: skip
        return Result(one, figures, advice, runs)

    def _progress(
        self, optimizer: Callable[..., torch.optim.Optimizer], clip: float,
        signal: float, noise: float,
    ) -> float:  # fmt: skip
        resources = self.subject.resources
        return progress_per_step(
            optimizer, signal=signal, noise=noise, clip=clip, device=resources.device,
            weights=sum(p.numel() for p in trained_weights(resources.policy)),
        )  # fmt: skip


def follows_law(sampler: SamplerPart | None, reward: RewardPart | None) -> bool:
    """Whether n is one of those for which the rollouts' noise has the form of `RolloutLaw`: a
    baseline of pairwise terms needs two other rollouts."""
    if sampler is None or reward is None:
        return False
    return sampler.n >= (3 if reward.pairwise() else 2)
