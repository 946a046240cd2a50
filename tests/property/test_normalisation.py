"""Properties 7 and 8: however a step is divided, every token gets its own rollout's advantage."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.objective import cross_entropy_loss, policy_gradient_loss
from tests.property.strategies import generator, normal, seeds
from tests.tiny import at_a_time, tiny_documents, tiny_policy, tiny_resources

POLICY = tiny_policy()


@st.composite
def partitions(draw, items=8):
    """The places of `items` things, divided among ranks, steps and micro-batches alike."""
    cuts = draw(st.lists(st.integers(1, items - 1), unique=True, max_size=items - 1))
    bounds = [0, *sorted(cuts), items]
    return [slice(a, b) for a, b in pairwise(bounds)]


@settings(max_examples=50)
@given(seed=seeds, parts=partitions(), reduction=st.sampled_from(["sum", "token_mean"]))
def test_the_policy_gradient_adds_up_over_any_division(seed, parts, reduction):
    log_probs = normal(seed, 8, 3, 5).requires_grad_()
    length = torch.randint(1, 6, (8, 3, 1), generator=generator(seed))
    mask, advantages = torch.arange(5) < length, normal(seed + 1, 8, 3)

    def loss(place):
        return policy_gradient_loss(
            log_probs[place], mask[place], advantages[place], contexts=8, reduction=reduction
        )

    whole, divided = loss(slice(None)), sum(loss(part) for part in parts)
    torch.testing.assert_close(divided, whole)
    torch.testing.assert_close(
        torch.autograd.grad(divided, log_probs), torch.autograd.grad(whole, log_probs)
    )


@settings(max_examples=50)
@given(seed=seeds, parts=partitions())
def test_cross_entropy_adds_up_over_any_division(seed, parts):
    log_probs = normal(seed, 8, 6).requires_grad_()
    mask = torch.rand(8, 6, generator=generator(seed)) < 0.7
    mask[0, 0] = True
    tokens = int(mask.sum())

    def loss(place):
        return cross_entropy_loss(log_probs[place], mask[place], tokens=tokens)

    whole, divided = loss(slice(None)), sum(loss(part) for part in parts)
    torch.testing.assert_close(divided, whole)
    torch.testing.assert_close(
        torch.autograd.grad(divided, log_probs), torch.autograd.grad(whole, log_probs)
    )


PLANS = {
    "nested": Strided(start=2, stride=2, rollout_length=3),
    "apart": Strided(start=1, stride=5, rollout_length=2),
    "completion": Completion(rollout_length=4),
}


@settings(max_examples=12)
@given(
    plan=st.sampled_from(sorted(PLANS)),
    lengths=st.lists(st.integers(6, 11), min_size=1, max_size=3),
    n=st.integers(1, 3),
    micro_batch=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_every_token_has_its_own_rollout_s_advantage(plan, lengths, n, micro_batch, seed):
    """The weight of each log-prob in the loss, through the tree: −A_j / (n P), in every packing.

    The log-probs themselves are those of independent rows: `test_tree.py`.
    """
    documents = tiny_documents(lengths, seed=seed, prompt_length=3)
    contexts = PLANS[plan](documents)
    rollouts = HfTree(n=n).build(tiny_resources(POLICY, eos=5))(contexts, step=seed)
    P = len(contexts)
    advantages = torch.arange(1.0, P * n + 1).view(P, n)
    for place, some in at_a_time(micro_batch, contexts).split():
        part = rollouts.of(some, place)
        log_probs = tree_log_probs(POLICY, part).rollouts
        loss = policy_gradient_loss(
            log_probs, part.mask, advantages[place], contexts=P, reduction="sum"
        )
        (weight,) = torch.autograd.grad(loss, log_probs)
        expected = -advantages[place][..., None] / (n * P) * part.mask
        torch.testing.assert_close(weight, expected.double())


@settings(max_examples=8)
@given(plan=st.sampled_from(sorted(PLANS)), seed=st.integers(0, 100))
def test_the_whole_gradient_is_that_of_independent_rows(plan, seed):
    """Σ A_j ∇ log p(ŷ_j | c) with each rollout in a row of its own, without any tree."""
    documents = tiny_documents([9, 7], seed=seed, prompt_length=3)
    contexts = PLANS[plan](documents)
    rollouts = HfTree(n=2, temperature=0.7).build(tiny_resources(POLICY, eos=5))(contexts, step=1)
    P = len(contexts)
    advantages = normal(seed, P, 2)
    parameters = list(POLICY.parameters())
    tree_loss = policy_gradient_loss(
        tree_log_probs(POLICY, rollouts).rollouts, rollouts.mask, advantages,
        contexts=P, reduction="sum",
    )  # fmt: skip
    rows_loss = torch.zeros(())
    for p in range(P):
        context = contexts.tokens[contexts.row[p], : contexts.anchor[p]]
        for j in range(2):
            tokens = rollouts.tokens[p, j][rollouts.mask[p, j]]
            logits = POLICY(torch.cat([context, tokens])[None]).logits[0]
            log_p = (logits[len(context) - 1 : -1] / 0.7).log_softmax(-1)
            chosen = log_p.gather(1, tokens[:, None]).sum()
            rows_loss = rows_loss - advantages[p, j] * chosen / (2 * P)
    for a, b in zip(
        torch.autograd.grad(tree_loss, parameters),
        torch.autograd.grad(rows_loss, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)
