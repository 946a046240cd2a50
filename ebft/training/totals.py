"""The losses of a step, added up over its micro-batches and over processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.importance import RatioStatistics, ratio_statistics
from ebft.objective import ObjectiveOptions
from ebft.processes import Processes
from ebft.rollout.records import Rollouts
from ebft.training.losses import Counts, LogProbs, PolicyGradientLoss


class PolicyGradient(NamedTuple):
    """The policy gradient's loss over the whole step, and what the trainer saw of the sampler.

    `sampler_gap` is the mean |log p(trainer) − log p(sampler)| over rollout tokens: rounding if
    both have the same weights, much more if the sampler's are stale. `ratios` are the statistics of
    the importance ratios, if the objective weighs with them.
    """

    loss: float
    sampler_gap: float
    ratios: RatioStatistics | None


class Losses(NamedTuple):
    """The two parts of the loss over the whole step; no policy gradient without rollouts."""

    policy_gradient: PolicyGradient | None
    cross_entropy: float


class Totals:
    """The sums as they grow."""

    def __init__(self, objective: ObjectiveOptions) -> None:
        self._cap = objective.importance.cap
        self._cross_entropy, self._policy_gradient, self._gap = torch.zeros(3, dtype=torch.float64)
        self._rollouts, self._ratios = False, list[Tensor]()

    def add_documents(self, cross_entropy: Float[Tensor, ""]) -> None:
        """The cross-entropy of a micro-batch."""
        self._cross_entropy += cross_entropy.detach().cpu()

    def add_rollouts(
        self, policy_gradient: PolicyGradientLoss, log_probs: LogProbs, rollouts: Rollouts
    ) -> None:
        """The policy gradient of a micro-batch, from the log-probs of its rollouts."""
        assert log_probs.rollouts is not None
        self._rollouts = True
        self._policy_gradient += policy_gradient.loss.detach().cpu()
        gap = (log_probs.rollouts.detach() - rollouts.log_probs).where(rollouts.mask, 0)
        self._gap += gap.abs().sum().cpu()
        if policy_gradient.ratios is not None:
            self._ratios.append(policy_gradient.ratios)

    def of_all(self, counts: Counts, processes: Processes) -> Losses:
        """Over all processes."""
        cross_entropy = float(processes.sum(self._cross_entropy))
        if not self._rollouts:
            return Losses(None, cross_entropy)
        loss, gap = processes.sum(torch.stack([self._policy_gradient, self._gap])).tolist()
        statistics = None
        if self._ratios:
            statistics = ratio_statistics(processes.gather(torch.cat(self._ratios)), self._cap)
        of_rollouts = PolicyGradient(loss, gap / counts.rollout_tokens, statistics)
        return Losses(of_rollouts, cross_entropy)
