"""What is measured of a recipe: inner products of documents' gradients, and rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.diagnosis.quality import Quality
from ebft.diagnosis.sets import ScoredSets, Scorers
from ebft.diagnosis.shared_tokens import SharedTokens
from ebft.errors import NumericalError
from ebft.scoring.gradient_signal import gram
from ebft.scoring.interval import Clusters
from ebft.scoring.within_contexts import rank_agreement, reward_spread
from ebft.training.gradients import cross_entropy_gradients, policy_gradients
from ebft.training.sketch import Sketch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.rollout.records import Contexts, Rollouts, Scored
    from ebft.training.objective import ObjectiveOptions


@dataclass(frozen=True, slots=True, eq=False)
class RolloutEvidence:
    """Inner products of the K documents' policy gradients, and statistics of their rewards.

    `sets` are of two independent sets of n rollouts; `union` of all 2n together, None if 2n
    rollouts have another expected gradient than n. `with_cross_entropy` are products of document
    k's policy gradient, over all its rollouts, and document l's gradient of the cross-entropy.
    `spread` and `ranks` are those of `ebft.scoring.within_contexts`; `spread` is None for n = 1.
    `gap` is that of `Scorers.gap`, None where `union` is. `length` is the mean number of tokens of
    a rollout, and `shared` says how many of them have prefixes of their own.
    """

    sets: Float[Tensor, "K 2 K 2"]
    union: Float[Tensor, "K K"] | None
    with_cross_entropy: Float[Tensor, "K K"]
    spread: Float[Tensor, "K 3"] | None
    ranks: Mapping[str, Float[Tensor, "K 3"]]
    gap: float | None
    length: float
    shared: SharedTokens


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that is measured of an alternative; `rollouts` is None for SFT.

    `cross_entropy` are inner products of gradients without γ.
    """

    clusters: Clusters
    cross_entropy: Float[Tensor, "K K"]
    rollouts: RolloutEvidence | None


@dataclass(frozen=True, slots=True)
class Measurer:
    """What gradients are measured of, and how; the same for all alternatives."""

    policy: PreTrainedModel
    sketch: Sketch
    precision: torch.dtype
    gradient_checkpointing: bool
    advance: Callable[[], object] = field(default=lambda: None)
    """Called after each gradient, for a progress bar."""

    def cross_entropy(
        self, contexts: Contexts, objective: ObjectiveOptions
    ) -> Float[Tensor, "K D"]:
        """Sketches of the gradient of L_CE of each document."""
        return self._sketched(
            cross_entropy_gradients(
                self.policy, contexts, objective,
                precision=self.precision, gradient_checkpointing=self.gradient_checkpointing,
            )
        )  # fmt: skip

    def policy_gradients(self, scored: Scored, objective: ObjectiveOptions) -> Float[Tensor, "K D"]:
        """Sketches of the gradient of L_FM of each document."""
        return self._sketched(
            policy_gradients(
                self.policy, scored.rollouts.contexts, scored, objective,
                precision=self.precision, gradient_checkpointing=self.gradient_checkpointing,
            )
        )  # fmt: skip

    def _sketched(self, gradients: Iterable[Sequence[Tensor]]) -> Float[Tensor, "K D"]:
        sketches = []
        for gradient in gradients:
            sketches.append(self.sketch(gradient).cpu())
            self.advance()
        return torch.stack(sketches)


def gather_rollouts(
    measurer: Measurer,
    scorers: Scorers,
    steps: Iterable[Rollouts],
    cross_entropy: Float[Tensor, "K D"],
    objective: ObjectiveOptions,
    *,
    unbiased: bool,
    qualities: Mapping[str, Quality],
) -> RolloutEvidence:
    """Measures the policy gradients of the documents of some steps.

    Gradients are scaled as those of one step of all K documents. `unbiased`: the baseline is, so
    that 2n rollouts have the expected gradient of n. Raises `NumericalError` for a gradient that is
    not finite.
    """
    sets, unions, contexts, spreads, lengths = [], [], [], [], []
    ranks: dict[str, list[Tensor]] = {name: [] for name in qualities}
    rollouts, drawn = None, []
    for rollouts in steps:
        drawn.append(rollouts)
        scored = scorers.score(rollouts)
        unbiased = unbiased and scored.keeps_terms
        of_sets = [measurer.policy_gradients(half, objective) for half in scored.halves]
        # The mean over a step's documents is divided by its contexts; undo that.
        scale = len(rollouts.contexts) / len(rollouts.contexts.documents)
        sets.append(scale * torch.stack(of_sets, 1))
        if unbiased:
            unions.append(scale * measurer.policy_gradients(scored.union, objective))
        contexts.append(len(rollouts.contexts))
        lengths.append(rollouts.mask.sum(-1).float().flatten())
        if rollouts.tokens.shape[1] > 3:
            spreads.append(_spread(scored))
        for name, quality in qualities.items():
            ranks[name].append(_ranks(scored, quality))
    assert rollouts is not None, "there is a step"
    per_context = len(cross_entropy) / sum(contexts)
    both = per_context * torch.cat(sets)
    _check("policy gradient", both.flatten(1))
    union = per_context * torch.cat(unions) if unbiased else None
    mean = both.mean(1) if union is None else union
    return RolloutEvidence(
        sets=gram(both, both),
        union=None if union is None else _products(union, union),
        with_cross_entropy=_products(mean, cross_entropy),
        spread=torch.cat(spreads) if spreads else None,
        ranks={name: torch.cat(found) for name, found in ranks.items()},
        gap=scorers.gap(rollouts) if unbiased else None,
        length=float(torch.cat(lengths).mean()),
        shared=SharedTokens.of(drawn),
    )


def evidence_of_documents(
    cross_entropy: Float[Tensor, "K D"], clusters: Clusters, rollouts: RolloutEvidence | None
) -> Evidence:
    """Raises `NumericalError` for a gradient that is not finite."""
    _check("gradient of the cross-entropy", cross_entropy)
    return Evidence(clusters, _products(cross_entropy, cross_entropy), rollouts)


def _products(ours: Float[Tensor, "K D"], theirs: Float[Tensor, "K D"]) -> Float[Tensor, "K K"]:
    return gram(ours[:, None], theirs[:, None])[:, 0, :, 0]


def _spread(scored: ScoredSets) -> Float[Tensor, "B 3"]:
    c = scored.union.rollouts.contexts
    rewards = torch.stack([half.reward() for half in scored.halves], 1)
    return reward_spread(rewards, c.row, len(c.documents))


def _ranks(scored: ScoredSets, quality: Quality) -> Float[Tensor, "B 3"]:
    c = scored.union.rollouts.contexts
    found = [
        rank_agreement(half.reward(), quality(half.rollouts), c.row, len(c.documents))
        for half in scored.halves
    ]
    return found[0] + found[1]


def _check(what: str, values: Float[Tensor, "K D"]) -> None:
    if not bool(values.isfinite().all()):
        bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
        raise NumericalError(f"the {what} of document number {bad[0] + 1} has NaN or infinity")
