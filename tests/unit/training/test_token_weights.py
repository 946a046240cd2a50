"""Weights of the cross-entropy's tokens: by probability (DFT), by entropy (EAFT)."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from transformers import PretrainedConfig

from ebft.models import tree_log_probs as forwards
from ebft.models.log_probs import token_log_probs_and_entropies
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import (
    LIKELIEST,
    ObjectiveOptions,
    cross_entropy_loss,
    cross_entropy_mask,
    token_weights,
)
from tests.property.strategies import normal, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on

CONTEXTS = Completion(rollout_length=3)(tiny_documents([9, 7, 11], prompt_length=4))


@given(seed=seeds)
def test_by_probability_it_is_the_gradient_of_the_probability(seed):
    logits = normal(seed, 2, 5, 7).requires_grad_()
    log_p = logits.log_softmax(-1)[..., 3]
    mask = torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)) < 0.7
    weights = token_weights(log_p, torch.zeros(2, 5), "probability")
    loss = cross_entropy_loss(log_p, mask, tokens=13, weights=weights)
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(-(log_p.exp() * mask).sum() / 13, logits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


class Model(torch.nn.Module):
    """As much of a model as its head is read from."""

    def __init__(self, head):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(1, 1), head
        self.config = PretrainedConfig()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head


@settings(max_examples=20)
@given(seed=seeds)
@pytest.mark.parametrize("vocabulary", [5, LIKELIEST, 50])
def test_entropies_are_of_the_likeliest_tokens(vocabulary, seed):
    torch.manual_seed(seed)
    model = Model(torch.nn.Linear(6, vocabulary).double())
    hidden, targets = normal(seed, 9, 6), torch.randint(vocabulary, (9,))
    hidden.requires_grad_()
    log_probs, entropies = token_log_probs_and_entropies(
        model, hidden, targets, likeliest=LIKELIEST
    )
    p = model.head(hidden).detach().softmax(-1).sort(descending=True).values[:, :LIKELIEST]
    p = p / p.sum(-1, keepdim=True)
    torch.testing.assert_close(entropies, torch.distributions.Categorical(p).entropy())
    assert not entropies.requires_grad
    expected = -torch.nn.functional.cross_entropy(model.head(hidden), targets, reduction="none")
    torch.testing.assert_close(log_probs, expected)


def test_the_weight_of_an_even_distribution_is_1_and_of_a_sure_one_0():
    even = torch.full((1, 1), log(LIKELIEST))
    assert token_weights(-even, even, "entropy").item() == pytest.approx(1)
    assert token_weights(torch.zeros(1, 1), 0 * even, "entropy").item() == 0
    assert token_weights(-even, even, "equal") is None


def gradient(policy, contexts, scored, **options):
    policy.zero_grad()
    losses = accumulate_gradients(
        policy, contexts, scored, ObjectiveOptions(**options),
        precision=torch.float64, gradient_checkpointing=False, step=0,
    )  # fmt: skip
    return losses, torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("sampled", [False, True], ids=["documents", "with rollouts"])
@pytest.mark.parametrize("kind", ["probability", "entropy"])
def test_the_step_has_the_weighted_gradient_and_logs_the_cross_entropy(kind, sampled):
    policy, scored, contexts = tiny_policy(), None, CONTEXTS.divided([2, 1])
    if sampled:
        rollouts = HfTree(n=3).build(tiny_resources(policy))(CONTEXTS, step=0)
        advantages = torch.zeros(len(CONTEXTS), 3, dtype=torch.float64)
        contexts, scored = trained_on(rollouts, advantages, micro_batch=2)
    plain, _ = gradient(policy, contexts, scored, gamma=0.5)
    losses, found = gradient(policy, contexts, scored, gamma=0.5, token_weights=kind)
    assert losses.cross_entropy == pytest.approx(plain.cross_entropy, abs=1e-12)

    policy.zero_grad()
    log_p, entropies = forwards.document_log_probs_and_entropies(
        policy, CONTEXTS, likeliest=LIKELIEST
    )
    weights = log_p.exp() if kind == "probability" else entropies / log(LIKELIEST)
    mask = cross_entropy_mask(CONTEXTS, "completion")
    (-0.5 * (weights.detach() * log_p)[mask].mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters()])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)


def test_the_tree_has_the_documents_entropies():
    policy = tiny_policy()
    contexts = Strided(start=3, stride=4, rollout_length=2)(tiny_documents([9, 13]))
    rollouts = HfTree(n=2).build(tiny_resources(policy))(contexts, step=0)
    how = {"train_documents": False, "likeliest": 4}
    _, tree = forwards.tree_log_probs_and_entropies(policy, rollouts, **how)
    alone = forwards.document_log_probs_and_entropies(policy, contexts, likeliest=4)
    for ours, theirs in zip(tree, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    assert tree.entropies[0, 0] == tree.entropies[0, 9:].sum() == 0
    assert (tree.entropies[0, 1:9] > 0).all()


def test_it_is_not_the_gradient_of_the_cross_entropy():
    for kind in ("probability", "entropy"):
        claim = ObjectiveOptions(gamma=1, token_weights=kind).claim(
            rollouts_end=False, pairwise=True
        )
        assert not claim.unbiased
        assert kind in claim.why
