"""Expectations over every outcome of a small policy: what estimators are held against.

A policy is a table over V outcomes. Each of the V^n draws of n rollouts, together with each of the
V ground truths, becomes one context of a batch, weighted with its probability.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ebft.rollout.records import Features, Terms
from ebft.training.objective import policy_gradient_loss


def outcomes(V: int, n: int) -> Tensor:
    """Every draw of n from V outcomes and a ground truth: [V^(n+1), n + 1]."""
    return torch.tensor(list(itertools.product(range(V), repeat=n + 1)))


def expected_gradient(
    logits: Tensor,
    truth: Tensor,
    phi: Tensor,
    n: int,
    reward: Callable[[Features], Terms],
    baseline: Callable[[Terms], Tensor],
) -> Tensor:
    """The exact mean of the estimated gradient of the loss in the logits.

    `truth` [V] is the distribution of ground truths, `phi` [V, D] the features of each outcome.
    """
    logits = logits.clone().requires_grad_()
    log_p = logits.log_softmax(0)
    drawn = outcomes(len(logits), n)
    samples, reference = drawn[:, :n], drawn[:, n]
    weight = (log_p.detach()[samples].sum(1).exp() * truth[reference])[:, None]
    terms = reward(Features(phi[samples], phi[reference][:, None]))
    log_probs = log_p[samples][..., None]
    mask = torch.ones_like(log_probs, dtype=torch.bool)
    loss = policy_gradient_loss(
        log_probs, mask, weight * baseline(terms), contexts=1, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


def gradient_of(objective: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The gradient in the logits of an objective of the probabilities."""
    logits = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(logits.softmax(0)), logits)
    return gradient


def expectation(
    values: Callable[[Features], Tensor], p: Tensor, truth: Tensor, phi: Tensor, n: int
) -> Tensor:
    """The exact mean of a statistic [P] of n rollouts from p and a ground truth."""
    drawn = outcomes(len(p), n)
    samples, reference = drawn[:, :n], drawn[:, n]
    weight = p[samples].prod(1) * truth[reference]
    return (weight * values(Features(phi[samples], phi[reference][:, None]))).sum()
