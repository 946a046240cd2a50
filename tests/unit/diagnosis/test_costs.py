from itertools import combinations

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.diagnosis.alternatives import Alternative
from ebft.diagnosis.costs import Costs
from ebft.diagnosis.shared_tokens import SharedTokens
from ebft.plans.strided import Strided
from ebft.rollout.merge import distinct
from ebft.rollout.records import Rollouts
from ebft.runs.estimate import StepEstimate
from tests.conftest import RECIPES
from tests.tiny import tiny_documents


@pytest.fixture
def options():
    return load_recipe(RECIPES / "ebft_full.yaml").options


def costs_of(options, lengths, *, length=None, shared=None):
    estimate, contexts = StepEstimate.of(options), options.plan(tiny_documents(lengths))
    return Costs.of(estimate, contexts, length=length, shared=shared)


def test_the_longest_document_costs_what_the_estimate_says(options):
    estimate = StepEstimate.of(options)
    costs = costs_of(options, [options.documents.length] * 2)
    assert costs.of_training(options.sampler.n) == pytest.approx(
        sum(work.flop for work in estimate.work())
    )


def test_the_mean_document_counts(options):
    each = [costs_of(options, [length]).of_training(4) for length in (100, 256)]
    assert costs_of(options, [100, 256]).of_training(4) == pytest.approx(sum(each) / 2)
    assert each[0] < each[1]


def test_more_rollouts_cost_more_but_less_than_in_proportion(options):
    costs = costs_of(options, [256])
    four, eight, twelve = (costs.of_training(n) for n in (4, 8, 12))
    assert four < eight < 2 * four
    assert twelve - eight == pytest.approx(eight - four)


def test_rollouts_that_end_early_cost_what_they_have(options):
    short = options.model_copy(
        update={"plan": options.plan.model_copy(update={"rollout_length": 4})}
    )
    whole = costs_of(options, [256])
    assert costs_of(options, [256], length=8.4).of_training(4) == whole.of_training(4)
    early = costs_of(options, [256], length=4.2)
    # References are counted as long as rollouts, and features read them.
    assert early.of_training(0) == pytest.approx(whole.of_training(0), rel=0.01)
    assert early.of_training(4) == costs_of(short, [256]).of_training(4)


def rollouts_of_few_tokens(n=4):
    contexts = Strided(start=4, stride=6, rollout_length=5)(tiny_documents([40, 30]))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, (len(contexts), n, 5), generator=generator)
    ends = torch.randint(1, 6, (len(contexts), n, 1), generator=generator)
    return Rollouts(contexts, tokens, torch.zeros(tokens.shape), torch.arange(5) < ends, 1.0)


def share(rollouts, chosen):
    tokens, mask = rollouts.tokens[:, chosen], rollouts.mask[:, chosen]
    return int(distinct(tokens, mask).kept.sum()), int(mask.sum())


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tokens_of_n_rollouts_that_are_computed(n):
    rollouts = rollouts_of_few_tokens()
    found = [share(rollouts, list(chosen)) for chosen in combinations(range(4), n)]
    expected = sum(kept for kept, _ in found) / sum(tokens for _, tokens in found)
    both = SharedTokens.of([rollouts, rollouts])
    assert both.share(n) == pytest.approx(expected)
    assert both.share(1) == 1
    assert both.share(16) == pytest.approx(both.share(4) ** 3 / both.share(2) ** 2)


def test_tokens_with_the_same_prefix_cost_nothing(options):
    shared = SharedTokens.of([rollouts_of_few_tokens()])
    every, once = (costs_of(options, [256], shared=it) for it in (None, shared))
    none = every.of_training(0)
    assert once.of_training(0) == none
    for n in (2, 4):
        rollouts = every.of_training(n) - none
        assert once.of_training(n) - none == pytest.approx(shared.share(n) * rollouts)


def test_measuring_costs_two_sets_and_the_union(options):
    costs = costs_of(options, [256, 200])
    two, with_union = (costs.of_measuring(4, union=union) for union in (False, True))
    assert with_union > two > 0
    both = sum(costs_of(options, [length]).of_training(8) for length in (256, 200))
    assert with_union < 3 * both
    assert 0 < costs.of_cross_entropy() < two


def test_of_a_model_that_is_not_here_nothing_is_known(options):
    model = options.model.model_copy(update={"path": "/nowhere/at/all"})
    changed = options.model_copy(update={"model": model})
    assert Alternative("", None, options).estimate() is not None
    assert Alternative("", None, changed).estimate() is None
