"""A model on rows computes what it computes on a tree, for the same model."""

import pytest
import torch

from ebft.features.hidden_states import HiddenStates
from ebft.models.attention import on_tree
from ebft.models.row_cache import Caching, caching, set_caching
from ebft.models.tree_log_probs import document_log_probs, tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.testing.tiny import tiny_rollouts
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on

PLANS = {
    "strided": Strided(start=3, stride=4, rollout_length=5),
    "completion": Completion(rollout_length=6),
}


def on_rows(seed=0):
    policy = tiny_policy(seed)
    policy.set_attn_implementation("sdpa")
    assert not on_tree(policy)
    return policy


@pytest.fixture(params=PLANS)
def rollouts(request):
    contexts = PLANS[request.param](tiny_documents([23, 9, 30], prompt_length=6))
    return tiny_rollouts(contexts, n=3)


def test_log_probs(rollouts):
    with torch.no_grad():
        rows, tree = (tree_log_probs(policy, rollouts) for policy in (on_rows(), tiny_policy()))
    mask = rollouts.mask
    torch.testing.assert_close(rows.rollouts[mask], tree.rollouts[mask], atol=1e-12, rtol=0)
    torch.testing.assert_close(rows.documents, tree.documents, atol=1e-12, rtol=0)
    with torch.no_grad():
        alone = document_log_probs(on_rows(), rollouts.contexts)
    torch.testing.assert_close(alone, tree.documents, atol=1e-12, rtol=0)


@pytest.mark.parametrize("depths", [(0.25, 0.5, 0.75), (1.0, 0.5)])
def test_features(rollouts, depths):
    part = HiddenStates(depths=depths)
    rows, tree = (
        part.build(tiny_resources(policy))(rollouts) for policy in (on_rows(), tiny_policy())
    )
    torch.testing.assert_close(rows.samples, tree.samples, atol=1e-12, rtol=0)
    torch.testing.assert_close(rows.references, tree.references, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_gradients(rollouts, gradient_checkpointing):
    advantages = torch.randn(rollouts.tokens.shape[:2], dtype=torch.float64)
    found = []
    for policy in (on_rows(), tiny_policy()):
        contexts, scored = trained_on(rollouts, advantages, micro_batch=2)
        accumulate_gradients(
            policy, contexts, scored, ObjectiveOptions(gamma=0.3),
            precision=torch.float32, gradient_checkpointing=gradient_checkpointing, step=0,
        )  # fmt: skip
        found.append({name: p.grad for name, p in policy.named_parameters()})
    for name, grad in found[1].items():
        torch.testing.assert_close(found[0][name], grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("how", Caching)
@pytest.mark.parametrize("plan", PLANS)
def test_sampling(plan, how):
    """Documents of different lengths, so that some have no context at the later anchors."""
    contexts = PLANS[plan](tiny_documents([23, 9, 30], prompt_length=6))
    policy = on_rows()
    set_caching(policy, how)
    rows = HfTree(n=3).build(tiny_resources(policy))(contexts, step=0)
    tree = HfTree(n=3).build(tiny_resources(tiny_policy()))(contexts, step=0)
    assert torch.equal(rows.tokens, tree.tokens)
    assert torch.equal(rows.mask, tree.mask)
    torch.testing.assert_close(rows.log_probs, tree.log_probs, atol=1e-12, rtol=0)


def test_a_document_is_read_once_if_its_cache_can_be_continued(monkeypatch):
    contexts = PLANS["strided"](tiny_documents([23, 23]))
    read = {}
    for how in Caching:
        policy, tokens = on_rows(), []
        policy.model.register_forward_pre_hook(
            lambda _module, _args, kwargs, tokens=tokens: tokens.append(
                kwargs["input_ids"].numel()
            ),
            with_kwargs=True,
        )
        set_caching(policy, how)
        HfTree(n=2).build(tiny_resources(policy))(contexts, step=0)
        read[how] = sum(tokens)
    anchors, branches = contexts.anchor[contexts.row == 0].tolist(), 2 * 2 * 4
    decoded = branches * len(anchors)
    assert read[Caching.CONTINUED] == 2 * max(anchors) + decoded
    assert read[Caching.PREFILLED] == 2 * sum(anchors) + decoded
    assert read[Caching.NONE] > read[Caching.PREFILLED]


def test_the_cache_is_prefilled_unless_it_is_known_to_be_better():
    assert caching(on_rows()) is Caching.PREFILLED
