import pytest
import torch

from ebft.baselines.moving_average import MovingAverageBaseline
from ebft.rollout.records import Terms


def terms(value, n=2):
    return Terms.of_unary(torch.full((3, n), float(value)))


def test_only_steps_before_are_subtracted():
    baseline = MovingAverageBaseline(0.5)
    assert baseline(terms(4)).unique().tolist() == [4]
    assert baseline(terms(1)).unique().tolist() == [1 - 4]
    # (0.25·4 + 0.5·1) / 0.75
    assert baseline(terms(0)).unique().tolist() == pytest.approx([-2])


def test_a_constant_reward_is_known_after_one_step():
    baseline = MovingAverageBaseline(0.99)
    baseline(terms(3))
    for _ in range(5):
        assert baseline(terms(3)).abs().max() < 1e-6


def test_it_resumes():
    whole, first, second = (MovingAverageBaseline(0.9) for _ in range(3))
    for value in (1, 2):
        whole(terms(value)), first(terms(value))
    second.load_state_dict(first.state_dict())
    assert torch.equal(whole(terms(5)), second(terms(5)))
