"""The figures of a step that are logged."""

import pytest
import torch

from ebft.distributed.processes import ONE_PROCESS
from ebft.plans.completion import Completion
from ebft.rollout.records import Scored, Terms
from ebft.testing.tiny import tiny_rollouts
from ebft.training.metrics import scored_metrics
from tests.tiny import tiny_documents


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("rewards", "spread"), [([[1.0]], None), ([[1.0, 3.0]], 2**0.5)])
def test_a_single_advantage_has_no_spread(rewards, spread):
    rollouts = tiny_rollouts(
        Completion(rollout_length=3)(tiny_documents([9], prompt_length=4)), n=len(rewards[0])
    )
    terms = Terms.of_unary(torch.tensor(rewards))
    metrics = scored_metrics(Scored(rollouts, None, terms, terms.reward()), ONE_PROCESS)
    assert metrics.get("advantage_std") == (None if spread is None else pytest.approx(spread))
