import pytest

from ebft.config.load import load_recipe
from ebft.diagnosis.alternatives import Alternative
from ebft.diagnosis.costs import Costs
from ebft.runs.estimate import StepEstimate
from tests.conftest import RECIPES
from tests.tiny import tiny_documents


@pytest.fixture
def options():
    return load_recipe(RECIPES / "ebft_full.yaml").options


def costs_of(options, lengths, *, length=None):
    estimate, contexts = StepEstimate.of(options), options.plan(tiny_documents(lengths))
    return Costs.of(estimate, contexts, length=length)


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
