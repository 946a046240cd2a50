import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ebft.scoring.within_contexts import (
    effective_share,
    kendall_tau,
    rank_agreement,
    reward_spread,
)
from tests.property.strategies import normal, seeds


@settings(max_examples=40)
@given(seed=seeds, n=st.integers(3, 9), ties=st.booleans())
def test_of_one_context_it_is_kendalls_tau(seed, n, ties):
    ours, theirs = normal(seed, 1, n), normal(seed + 1, 1, n)
    if ties:
        ours, theirs = ours.round(), theirs.round()
    sums = rank_agreement(ours, theirs, torch.zeros(1, dtype=torch.long), 1)[0]
    expected = stats.kendalltau(ours[0], theirs[0]).statistic
    assert kendall_tau(sums.tolist()) == pytest.approx(float(expected), nan_ok=True)


def test_only_rollouts_of_one_context_are_compared():
    """Two contexts, each perfectly ordered; over both together the order is reversed."""
    ours = torch.tensor([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    theirs = torch.tensor([[101.0, 102.0, 103.0], [1.0, 2.0, 3.0]])
    sums = rank_agreement(ours, theirs, torch.tensor([0, 1]), 2)
    assert sums.tolist() == [[3.0, 3.0, 3.0]] * 2
    assert kendall_tau(sums.sum(0).tolist()) == 1
    assert kendall_tau((-sums).sum(0).abs().tolist()) == 1


def test_contexts_add_up_in_their_document():
    ours, theirs = normal(0, 4, 5), normal(1, 4, 5)
    row = torch.tensor([0, 0, 2, 2])
    each = rank_agreement(ours, theirs, torch.arange(4), 4)
    assert torch.equal(
        rank_agreement(ours, theirs, row, 3),
        torch.stack([each[:2].sum(0), torch.zeros(3).double(), each[2:].sum(0)]),
    )


def test_without_an_order_there_is_no_tau():
    flat, some = torch.ones(2, 4), normal(0, 2, 4)
    sums = rank_agreement(flat, some, torch.tensor([0, 0]), 1)[0].tolist()
    assert sums == [0.0, 0.0, 12.0]
    assert math.isnan(kendall_tau(sums))


def test_the_spread_is_that_of_two_sets():
    rewards = torch.tensor([[[0.0, 2.0], [0.0, 4.0]], [[1.0, 1.0], [3.0, 3.0]]])
    sums = reward_spread(rewards, torch.tensor([0, 0]), 1)[0].tolist()
    assert sums == [5.0, 16.0, 2.0]  # variances 2 and 8; 0 and 0
    assert effective_share(sums) == pytest.approx(25 / 32)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_share_of_contexts_with_a_spread(share):
    """So many contexts have rewards of one variance, the others none; 4,000 contexts."""
    P, n = 4000, 8
    rewards = normal(3, P, 2, n)
    rewards[int(share * P) :] = 1.0
    sums = reward_spread(rewards, torch.zeros(P, dtype=torch.long), 1)[0].tolist()
    assert effective_share(sums) == pytest.approx(share, rel=0.1)


def test_without_a_spread_there_is_no_share():
    sums = reward_spread(torch.ones(3, 2, 4), torch.tensor([0, 0, 0]), 1)[0].tolist()
    assert math.isnan(effective_share(sums))
