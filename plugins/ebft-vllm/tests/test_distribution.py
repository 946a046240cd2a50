"""hf_tree and vllm sample from the same distribution, and their log-probs agree with it."""

import pytest
import torch
from ebft_vllm import Vllm
from scipy.stats import chi2_contingency

from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from tests.tiny import tiny_documents

pytestmark = pytest.mark.slow

DRAWS = 1500
CONTEXTS = Strided(start=40, stride=30, rollout_length=3)(tiny_documents([103]))


def drawn(part, resources, **options):
    return part(n=DRAWS, **options).build(resources)


def test_tokens_have_the_same_distribution(make_policy, make_resources):
    """χ² on the first token, and on the pair of the first two, of each context."""
    resources = make_resources(make_policy())
    sampler = drawn(Vllm, resources, temperature=0.9, kv_cache_gib=0.5)
    ours = sampler(CONTEXTS, step=0)
    sampler.engine.close()
    theirs = drawn(HfTree, resources, temperature=0.9)(CONTEXTS, step=0)
    for p in range(len(CONTEXTS)):
        for tokens in (1, 2):
            counts = torch.stack(
                [histogram(rollouts.tokens[p, :, :tokens]) for rollouts in (ours, theirs)]
            )
            assert p_value(counts) > 1e-4, (p, tokens)
    # The test detects a wrong temperature.
    warmer = drawn(HfTree, resources, temperature=1.2)(CONTEXTS, step=0)
    found = [
        p_value(torch.stack([histogram(r.tokens[p, :, :2]) for r in (ours, warmer)]))
        for p in range(len(CONTEXTS))
    ]
    assert min(found) < 1e-4
    gap = (tree_log_probs(resources.policy, ours).rollouts - ours.log_probs).abs().max()
    assert gap < 1e-3


def histogram(tokens):
    """Counts of each outcome, tokens written as one number."""
    powers = 24 ** torch.arange(tokens.shape[1])
    return torch.bincount((tokens * powers).sum(1), minlength=24 ** tokens.shape[1])


def p_value(counts):
    """χ² of two histograms; outcomes that are expected fewer than 10 times are merged."""
    common = counts.sum(0) >= 20
    rare = counts[:, ~common].sum(1, keepdim=True)
    table = torch.cat([counts[:, common], rare], 1)
    table = table[:, table.sum(0) > 0]
    return chi2_contingency(table.numpy()).pvalue


@torch.no_grad()
def test_nearly_greedy_tokens_agree_but_for_near_ties(make_policy, make_resources):
    temperature = 0.02
    resources = make_resources(make_policy())
    contexts = Strided(start=40, stride=8, rollout_length=6)(tiny_documents([100] * 4))
    sampler = Vllm(n=1, temperature=temperature, kv_cache_gib=0.1).build(resources)
    ours = sampler(contexts, step=0)
    sampler.engine.close()
    theirs = HfTree(n=1, temperature=temperature).build(resources)(contexts, step=0)
    differs = (ours.tokens != theirs.tokens)[:, 0]
    assert differs.any(-1).float().mean() < 0.5
    for p in differs.any(-1).nonzero()[:, 0].tolist():
        first = int(differs[p].byte().argmax())
        chances = [float(r.log_probs[p, 0, first].exp()) for r in (ours, theirs)]
        # Neither token was improbable or certain, so a rounding error can explain the difference.
        assert all(1e-3 < chance < 0.999 for chance in chances), (p, first, chances)
