"""Two independent sets of n rollouts for each context, and their union, scored as in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ebft.distributed.processes import ONE_PROCESS
from ebft.parts.stateful import Stateful
from ebft.rollout.micro_batches import divide
from ebft.rollout.records import Contexts, Document, Rollouts, Scored
from ebft.training.loop import sample_and_score
from ebft.training.parts import RolloutParts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.parts.interfaces import Plan, Sampler
    from ebft.parts.part import Resources

SAMPLED = -2
"""The step in the address of the rollouts' random numbers: neither a training step nor an
evaluation."""


class Drawn:
    """A sampler that returns the rollouts it was made of."""

    def __init__(self, rollouts: Rollouts) -> None:
        self.n = rollouts.tokens.shape[1]
        self._rollouts = rollouts

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:  # noqa: ARG002
        return self._rollouts

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:  # noqa: ARG002
        return {}


def draw_both(
    sampler: Sampler, plan: Plan, documents: Sequence[Document], resources: Resources, budget: int
) -> Rollouts:
    """2n rollouts of each context, from a sampler that draws that many."""
    contexts = divide(plan(documents), n=sampler.n, budget=budget).to(resources.device)
    return sampler(contexts, step=SAMPLED)


def part_of(rollouts: Rollouts, first: int, last: int) -> Rollouts:
    """Rollouts first to last − 1 of each context."""
    return replace(
        rollouts,
        tokens=rollouts.tokens[:, first:last],
        log_probs=rollouts.log_probs[:, first:last],
        mask=rollouts.mask[:, first:last],
    )


@dataclass(frozen=True, slots=True)
class ScoredSets:
    """The scored rollouts of a step: two sets of n, and all 2n together."""

    halves: tuple[Scored, Scored]
    union: Scored

    @property
    def keeps_terms(self) -> bool:
        """Whether a rollout has the same terms in its set and in the union.

        Not so where features are whitened by the rollouts of their own context: then 2n rollouts
        have another reward, and so another expected gradient.
        """
        n, own, all_of = self.halves[0].terms.unary.shape[1], self.halves[0].terms, self.union.terms
        return torch.allclose(own.unary, all_of.unary[:, :n], rtol=1e-3, atol=1e-5) and (
            torch.allclose(own.pairwise, all_of.pairwise[:, :n, :n], rtol=1e-3, atol=1e-5)
        )


class Scorers:
    """The recipe's parts three times, because parts with state need one for each set of rollouts.

    `build` makes them anew.
    """

    def __init__(self, build: Callable[[], RolloutParts]) -> None:
        self._first, self._second, self._union = build(), build(), build()
        self._step = 0

    @property
    def have_state(self) -> bool:
        """Whether what is computed at a step depends on earlier ones."""
        parts = self._first
        return any(isinstance(part, Stateful) for part in (*parts.transforms, parts.baseline))

    def score(self, rollouts: Rollouts) -> ScoredSets:
        """Scores a step's 2n rollouts as two sets of n, and together."""
        n = rollouts.tokens.shape[1] // 2
        first, second = part_of(rollouts, 0, n), part_of(rollouts, n, 2 * n)
        halves = self._score(self._first, first), self._score(self._second, second)
        scored = ScoredSets(halves, self._score(self._union, rollouts))
        self._step += 1
        return scored

    def gap(self, rollouts: Rollouts) -> float:
        """How much the objective would rise if every rollout were its context's reference.

        The objective is that of the policy gradient, E[u] + ½ E[k] of the reward's terms u and k.
        With `feature_matching` the gap is L_CFM, for a verifier the share that does not pass.
        """
        two = part_of(rollouts, 0, 2)
        c = rollouts.contexts
        tokens = c.reference[:, None].expand_as(two.tokens).contiguous()
        mask = c.reference_mask[:, None].expand_as(two.mask).contiguous()
        mask[..., 0] = True  # a rollout has a token at least
        zeros = torch.zeros_like(two.log_probs)
        references = replace(two, tokens=tokens, log_probs=zeros, mask=mask)
        best = self._score(self._first, references)
        return objective_of(best) - objective_of(self._score(self._first, rollouts))

    def _score(self, parts: RolloutParts, rollouts: Rollouts) -> Scored:
        drawn = replace(parts, sampler=Drawn(rollouts))
        return sample_and_score(drawn, rollouts.contexts, ONE_PROCESS, step=self._step)


def objective_of(scored: Scored) -> float:
    """E[u] + ½ E[k], which the policy gradient raises; summed over tokens with own rewards."""
    terms, n = scored.terms, scored.terms.unary.shape[1]
    pairs = terms.pairwise.sum((1, 2)) / max(n * (n - 1), 1)
    return float((terms.unary.mean(1) + pairs / 2).mean()) * scored.rows_per_context
