"""Rollouts that are sampled a step ahead: of which weights, in which state, with what errors."""

import copy
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.checkpoints.state import gather_state, restore_state
from ebft.errors import EngineError, PluginError, UserError
from ebft.plans.strided import Strided
from ebft.rewards.token_overlap import TokenOverlap
from ebft.training.ahead import SamplerAhead, sampling_ahead
from ebft.training.loop import train
from ebft.training.objective import ImportanceOptions, ObjectiveOptions
from ebft.training.parts import RolloutParts
from tests.own_copy import OwnCopy
from tests.tiny import plain_policy, tiny_documents, tiny_resources
from tests.unit.training.test_loop import loop, weights

DOCUMENTS = tiny_documents([17, 14, 19, 15, 18])
PLAN = Strided(start=4, stride=4, rollout_length=3)
IMPORTANCE = ImportanceOptions(level="sequence", cap=None)


def loop_of(policy, *, lr=0.5, plan=PLAN, fails_at=-1):
    """RLVR of two documents a step, other ones each time; the sampler has its own weights."""
    resources = tiny_resources(policy)
    sampler = OwnCopy(n=3, fails_at=fails_at).build(resources)
    return replace(
        loop(policy, lr=lr),
        documents=lambda step: [DOCUMENTS[step % 5], DOCUMENTS[(step + 1) % 5]],
        plan=plan,
        rollout_parts=RolloutParts(sampler, None, [], TokenOverlap(), LeaveOneOut()),
        objective=ObjectiveOptions(gamma=0.1, importance=IMPORTANCE),
        precision=torch.float32,
        longest_tree=60,
    )


def ahead_of(some):
    return sampling_ahead(some, OwnCopy(n=3))


def run(some, steps):
    """The rollouts and the losses of the steps, and the weights that each began with."""
    begins, done = [copy.deepcopy(some.policy.state_dict())], []
    for step in train(some, steps):
        done.append(step)
        begins.append(copy.deepcopy(some.policy.state_dict()))
    return done, begins


def same(one, two):
    """Two steps, every bit."""
    a, b = one.scored.rollouts, two.scored.rollouts
    mine, yours = one.losses.policy_gradient, two.losses.policy_gradient
    return (
        torch.equal(a.tokens, b.tokens)
        and torch.equal(a.log_probs, b.log_probs)
        and torch.equal(a.mask, b.mask)
        and (one.grad_norm, one.losses.cross_entropy) == (two.grad_norm, two.losses.cross_entropy)
        and (mine.loss, mine.ratios) == (yours.loss, yours.ratios)
    )


def test_a_step_has_rollouts_of_the_weights_that_the_step_before_began_with():
    ahead = ahead_of(loop_of(plain_policy()))
    done, begins = run(ahead, range(4))
    expected = OwnCopy(n=3).build(tiny_resources(plain_policy()))
    other = plain_policy()
    for step, older in zip(done, [begins[0], *begins[:3]], strict=True):
        other.load_state_dict(older)
        expected.sync(other, step=step.number)
        rollouts = expected(step.contexts, step=step.number)
        assert torch.equal(step.scored.rollouts.tokens, rollouts.tokens)
        assert torch.equal(step.scored.rollouts.log_probs, rollouts.log_probs)
        assert step.scored.rollouts.contexts is step.contexts
    gaps = [step.losses.policy_gradient.sampler_gap for step in done]
    assert gaps[0] < 1e-5 < 1e-3 < min(gaps[1:]), "its own weights at first, then older ones"
    ratios = [step.losses.policy_gradient.ratios for step in done]
    assert ratios[0].effective == pytest.approx(1, abs=1e-5)
    assert all(one.effective < 0.9999 and one.largest > 1.001 for one in ratios[1:])


def test_without_staleness_it_is_the_run_in_turns_bit_for_bit():
    """With a learning rate of 0, every step has the same weights."""
    in_turns, _ = run(loop_of(plain_policy(), lr=0.0), range(4))
    ahead, _ = run(ahead_of(loop_of(plain_policy(), lr=0.0)), range(4))
    assert all(same(a, b) for a, b in zip(in_turns, ahead, strict=True))
    moves, _ = run(ahead_of(loop_of(plain_policy())), range(4))
    assert not same(moves[1], ahead[1])


@pytest.mark.parametrize("stopped_at", [0, 1, 2])
def test_it_goes_on_from_its_state_bit_for_bit(stopped_at, tmp_path):
    whole, _ = run(ahead_of(loop_of(plain_policy())), range(4))
    first = ahead_of(loop_of(plain_policy()))
    run(first, range(stopped_at))
    state, values = copy.deepcopy(gather_state(first)), weights(first.policy)
    assert (state["parts"]["sampler"]["pending"] is None) == (stopped_at == 0)

    policy = plain_policy()
    policy.load_state_dict(first.policy.state_dict())
    second = ahead_of(loop_of(policy))
    restore_state(second, state, step=stopped_at, shards=tmp_path)
    assert torch.equal(weights(second.policy), values)
    rest, _ = run(second, range(stopped_at, 4))
    assert len(rest) == 4 - stopped_at
    assert all(same(a, b) for a, b in zip(whole[stopped_at:], rest, strict=True))


def test_weights_arrive_only_when_nothing_is_sampled():
    """The sampler is asked for the next step's rollouts, and is not done when training is."""
    some = loop_of(plain_policy())
    inner, began, goes_on = some.rollout_parts.sampler, threading.Event(), threading.Event()

    class Slow:
        n, synced = inner.n, False

        def __call__(self, contexts, *, step):
            if step == 1:
                began.set()
                goes_on.wait(60)
            return inner(contexts, step=step)

        def sync(self, policy, *, step):
            self.synced = True
            return inner.sync(policy, step=step)

    slow = Slow()
    ahead = SamplerAhead(slow, some.contexts, some.processes)
    ahead(some.contexts(0), step=0)
    assert began.wait(60), "in the background: step 0 has its rollouts, and trains"
    assert ahead.state_dict()["pending"] is None, "what is not there cannot be saved"
    syncing = threading.Thread(target=ahead.sync, args=(some.policy,), kwargs={"step": 0})
    syncing.start()
    syncing.join(0.1)
    assert syncing.is_alive()
    assert not slow.synced
    goes_on.set()
    syncing.join(60)
    assert slow.synced
    assert ahead.state_dict()["pending"]["step"] == 1


def test_it_returns_the_sampler_s_figures_and_its_own_wait():
    some = loop_of(plain_policy())
    figures = SamplerAhead(some.rollout_parts.sampler, some.contexts, some.processes).sync(
        some.policy, step=3
    )
    assert figures["sync_step"] == 3
    assert 0 <= figures["sampling_wait_seconds"] < 60


def test_a_failure_is_raised_in_its_step_and_the_state_before_has_no_rollouts():
    ahead = ahead_of(loop_of(plain_policy(), fails_at=2))
    steps = train(ahead, range(4))
    assert [next(steps).number, next(steps).number] == [0, 1]
    assert gather_state(ahead)["parts"]["sampler"]["pending"] is None
    with pytest.raises(EngineError, match="died in step 2"):
        next(steps)


def test_what_is_no_rollouts_is_refused_like_any_sampler_s():
    some = loop_of(plain_policy())
    some.rollout_parts.sampler.inner = lambda contexts, *, step: contexts.tokens
    with pytest.raises(PluginError, match="sampler: returned Tensor, and must return Rollouts"):
        next(train(ahead_of(some), range(1)))


def test_what_was_sampled_for_another_step_is_not_taken():
    some = loop_of(plain_policy())
    sampler = some.rollout_parts.sampler
    ahead, contexts = SamplerAhead(sampler, some.contexts, some.processes), some.contexts(3)
    ahead(some.contexts(0), step=0)
    rollouts = ahead(contexts, step=3)
    ahead.sync(some.policy, step=3)
    assert torch.equal(rollouts.tokens, sampler(contexts, step=3).tokens)


def test_rollouts_of_other_processes_are_sampled_again_and_that_is_said(caplog):
    ahead = ahead_of(loop_of(plain_policy()))
    run(ahead, range(1))
    state = copy.deepcopy(ahead.rollout_parts.sampler.state_dict())
    state["pending"]["processes"] = 2
    ahead.rollout_parts.sampler.load_state_dict(state)
    assert ahead.rollout_parts.sampler.state_dict()["pending"] is None
    assert "step 2: its rollouts were sampled ahead in 2 processes and there are 1" in caplog.text


def test_the_state_of_other_documents_does_not_fit():
    ahead = ahead_of(loop_of(plain_policy()))
    run(ahead, range(1))
    state = copy.deepcopy(ahead.rollout_parts.sampler.state_dict())
    for name in ("tokens", "log_probs", "mask"):
        state["pending"][name] = state["pending"][name][:-1]
    with pytest.raises(ValueError, match="rollouts of 5 contexts, and there are 6"):
        ahead.rollout_parts.sampler.load_state_dict(state)


def test_a_plan_with_state_cannot_be_asked_ahead():
    class Curriculum(Strided):
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    plan = Curriculum(start=4, stride=4, rollout_length=3)
    with pytest.raises(UserError, match="sample_ahead = 1: the plan Curriculum has state"):
        ahead_of(loop_of(plain_policy(), plan=plan))


def test_a_sampler_that_cannot_do_it_in_so_many_processes_is_refused():
    class Alone(OwnCopy):
        def has_own_weights(self, processes):
            return processes == 1

    some = loop_of(plain_policy())
    sampling_ahead(some, Alone(n=3))
    two = replace(some, processes=SimpleNamespace(size=2))
    with pytest.raises(UserError, match="the sampler Alone cannot sample while 2 processes train"):
        sampling_ahead(two, Alone(n=3))
