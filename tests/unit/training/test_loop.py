"""What the loop does with a step's gradients: limited, looked at, used once, and by a schedule."""

import copy

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from ebft.distributed.processes import ONE_PROCESS
from ebft.errors import NumericalError
from ebft.plans.strided import Strided
from ebft.rollout.micro_batches import MicroBatch
from ebft.training.checks import check_gradients
from ebft.training.loop import accumulate_gradients, clip_gradients, train
from ebft.training.objective import ObjectiveOptions
from ebft.training.parts import LoopParts
from tests.tiny import tiny_documents, tiny_policy

DOCUMENTS = tiny_documents([9, 6])
PLAN = Strided(start=2, stride=3, rollout_length=2)
OBJECTIVE = ObjectiveOptions(gamma=1.0)


def loop(policy, *, largest=1e9, lr=0.1):
    """SFT of the same two documents in every step, by plain gradient descent."""
    optimizer = torch.optim.SGD(policy.parameters(), lr=lr)
    return LoopParts(
        policy=policy,
        documents=lambda step: DOCUMENTS,
        plan=PLAN,
        rollout_parts=None,
        objective=OBJECTIVE,
        optimizer=optimizer,
        lr_scheduler=LambdaLR(optimizer, lambda done: 0.5**done),
        micro_batch=MicroBatch(1),
        longest_tree=9,
        gradient_checkpointing=False,
        keep_logits=False,
        clip_grad_norm=largest,
        precision=torch.float64,
        device=torch.device("cpu"),
        processes=ONE_PROCESS,
    )


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def gradient(policy):
    """Of the whole step, at the policy's present weights; the policy stays as it is."""
    other = copy.deepcopy(policy)
    other.zero_grad()
    accumulate_gradients(
        other, PLAN(DOCUMENTS), None, OBJECTIVE,
        precision=torch.float64, gradient_checkpointing=False, step=0,
    )  # fmt: skip
    return torch.cat([p.grad.flatten() for p in other.parameters()])


def test_an_update_is_of_the_step_s_own_gradient_at_the_schedule_s_rate():
    policy = tiny_policy()
    m = loop(policy)
    steps = train(m, range(3))
    for number in range(3):
        before, expected = weights(policy), gradient(policy)
        step = next(steps)
        assert step.learning_rate == pytest.approx(0.1 * 0.5**number)
        assert step.grad_norm == pytest.approx(float(expected.norm()), rel=1e-6)
        torch.testing.assert_close(weights(policy), before - step.learning_rate * expected)
        assert all(p.grad is None for p in policy.parameters())


def test_a_gradient_that_is_too_large_is_scaled():
    policy = tiny_policy()
    before, whole = weights(policy), gradient(policy)
    largest = float(whole.norm()) / 8
    (step,) = train(loop(policy, largest=largest), range(1))
    assert step.grad_norm == pytest.approx(float(whole.norm())), "as it was before"
    torch.testing.assert_close(weights(policy), before - 0.1 * whole / 8, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("largest", "left"), [(10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_clipping_is_over_all_parameters_together(largest, left):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    for parameter, value in zip(parameters, (3.0, 4.0), strict=False):
        parameter.grad = torch.tensor([value])
    assert float(clip_gradients(parameters, largest)) == 5.0
    assert [float(p.grad) for p in parameters[:2]] == pytest.approx(left, rel=1e-5)
    assert parameters[2].grad is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(bad):
    policy = tiny_policy()
    next(policy.parameters()).register_hook(lambda grad: grad * bad)
    before = weights(policy)
    with pytest.raises(NumericalError, match=r"step 1: the gradient norm is .* in doc0, doc1"):
        next(train(loop(policy), range(1)))
    torch.testing.assert_close(weights(policy), before, atol=0, rtol=0)


def test_a_finite_norm_passes():
    check_gradients(torch.tensor(1e30), PLAN(DOCUMENTS), step=0)
