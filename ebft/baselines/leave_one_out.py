"""Baseline `leave_one_out`: the mean of the other rollouts, without every term touching j."""

from __future__ import annotations

from jaxtyping import Float

from ebft.lazy import Tensor, torch
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim
from ebft.rollout.records import Terms


class LeaveOneOut(BaselinePart):
    """A_j = r_j − b_j, b_j = mean_{i≠j} u_i + 1/((n−1)(n−2)) Σ_{i≠j} Σ_{i'≠i,j} k_ii'.

    What the reward would be on average if j had never been sampled, so it does not depend on
    rollout j and the gradient stays unbiased (paper, appendix E). For n = 2 no pair is left
    without j and the second term is 0; for n = 1 nothing at all is left and the baseline is 0.
    """

    def claim(self) -> Claim:
        return Claim(True, "b_j leaves out every term that touches rollout j")

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        return terms.reward() - leave_one_out(terms)


def leave_one_out(terms: Terms) -> Float[Tensor, "P n"]:
    """b_j of `LeaveOneOut`, for pairwise terms that need not be symmetric.

    Without rollout 0, the others have unary 2 and 3 and −4 with each other:

    >>> unary = torch.tensor([[1.0, 2.0, 3.0]])
    >>> pairwise = torch.tensor([[[0.0, -1.0, -1.0], [-1.0, 0.0, -4.0], [-1.0, -4.0, 0.0]]])
    >>> leave_one_out(Terms(unary, pairwise))
    tensor([[-1.5000,  1.0000,  0.5000]])
    """
    n = terms.unary.shape[1]
    if n == 1:
        return torch.zeros_like(terms.unary)
    baseline = (terms.unary.sum(1, keepdim=True) - terms.unary) / (n - 1)
    if n > 2:
        # All pairs, less those that have j on either side; the diagonal is zero.
        touching = terms.pairwise.sum(1) + terms.pairwise.sum(2)
        others = terms.pairwise.sum((1, 2))[:, None] - touching
        baseline = baseline + others / ((n - 1) * (n - 2))
    return baseline
