"""Logits are made of some rows at a time, however many rollouts there are."""

import torch

from ebft.models import log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers import hf_tree
from ebft.samplers.hf_tree import HfTree
from tests.property.test_tree import prefixes
from tests.tiny import at_a_time, tiny_documents, tiny_policy, tiny_resources


def test_rows_at_a_time_change_nothing(monkeypatch):
    policy, seen = tiny_policy(), []
    contexts = Strided(start=2, stride=3, rollout_length=4)(tiny_documents([20, 31]))
    sampler = HfTree(n=3).build(tiny_resources(policy))
    whole = sampler(contexts, step=0)

    def counted(model, hidden):
        seen.append(len(hidden))
        return logits(model, hidden)

    logits = log_probs.logits
    monkeypatch.setattr(log_probs, "logits", counted)
    monkeypatch.setattr(hf_tree, "ROWS", 5)
    parts = sampler(contexts, step=0)
    assert max(seen) == 5
    fed = len(prefixes(whole.first(3)))
    assert sum(seen) == len(contexts) + fed, "a context's first tokens share theirs"
    assert fed < len(contexts) * 3 * 3
    assert torch.equal(parts.tokens, whole.tokens)
    torch.testing.assert_close(parts.log_probs, whole.log_probs, atol=1e-12, rtol=0)


def test_micro_batches_of_few_branches_decode_together():
    policy, forwarded = tiny_policy(), []
    contexts = Strided(start=2, stride=5, rollout_length=3)(tiny_documents([12] * 6))
    sampler = HfTree(n=2).build(tiny_resources(policy))
    whole = sampler(contexts, step=0)
    hook = policy.base_model.register_forward_pre_hook(
        lambda _m, _a, others: forwarded.append(others["input_ids"].numel()), with_kwargs=True
    )
    with hook:
        parts = sampler(at_a_time(1, contexts), step=0)
    # Each has 2 anchors, the last at 7: four documents, then two.
    firsts, seconds = (len(prefixes(whole.first(t))) for t in (1, 2))
    assert [forwarded[0], forwarded[3]] == [4 * 7, 2 * 7]
    assert forwarded[1] + forwarded[4] == firsts
    assert forwarded[2] + forwarded[5] == seconds - firsts
    assert torch.equal(parts.tokens, whole.tokens)
    torch.testing.assert_close(parts.log_probs, whole.log_probs, atol=1e-12, rtol=0)


def test_rollouts_that_have_ended_are_not_read_any_further():
    policy, forwarded = tiny_policy(), []
    resources = tiny_resources(policy)
    contexts = Completion(rollout_length=20)(tiny_documents([30, 26], prompt_length=8))
    sampler = HfTree(n=8).build(resources)
    hook = policy.base_model.register_forward_pre_hook(
        lambda _m, _a, others: forwarded.append(others["input_ids"].numel()), with_kwargs=True
    )
    with hook:
        rollouts = sampler(contexts, step=0)
    assert not rollouts.mask.all()
    eos = resources.tokenizer.eos_token_id
    read = [text for _, text in prefixes(rollouts.first(19)) if text[-1] != eos]
    assert sum(forwarded) == 2 * 8 + len(read)
