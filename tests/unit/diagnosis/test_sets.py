from functools import partial

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.diagnosis.alternatives import Alternative
from ebft.diagnosis.sets import Scorers, draw_both, objective_of, part_of
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.micro_batches import divide
from ebft.rollout.records import Features
from ebft.samplers.hf_tree import HfTree
from ebft.scoring.kernel_scores import unbiased_cfm
from tests.conftest import RECIPES
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

PLAN = Strided(start=4, stride=5, rollout_length=3)


def options(*overrides, recipe="ebft_full"):
    return load_recipe(RECIPES / f"{recipe}.yaml", overrides).options


def scorers_of(options, resources):
    return Scorers(partial(Alternative("", None, options).build, resources))


@pytest.fixture(scope="module")
def resources():
    return tiny_resources(tiny_policy())


@pytest.fixture(scope="module")
def rollouts(resources):
    documents = tiny_documents([20, 14, 25])
    return draw_both(HfTree(n=8).build(resources), PLAN, documents, resources, budget=80)


def test_the_sets_are_independent_and_the_union_has_both(resources, rollouts):
    assert rollouts.tokens.shape[1] == 8
    scored = scorers_of(options(), resources).score(rollouts)
    first, second = (half.rollouts.tokens for half in scored.halves)
    assert torch.equal(torch.cat([first, second], 1), scored.union.rollouts.tokens)
    assert not torch.equal(first, second)
    assert torch.equal(first, part_of(rollouts, 0, 4).tokens)
    for half in scored.halves:
        assert half.advantages.shape == first.shape[:2]
    assert scored.keeps_terms


def test_fewer_rollouts_are_the_first_of_more(resources, rollouts):
    """Two alternatives with other n are measured on common rollouts, so differences are paired."""
    documents = list(rollouts.contexts.documents)
    four = draw_both(HfTree(n=4).build(resources), PLAN, documents, resources, budget=10**6)
    assert torch.equal(four.tokens, rollouts.tokens[:, :4])


@pytest.mark.parametrize(
    ("transforms", "keeps"),
    [
        ("[{_component_: l2}]", True),
        ("[{_component_: whiten_running}]", True),
        ("[{_component_: whiten_context_authors}]", False),
        ("[{_component_: whiten_context_paper}]", False),
    ],
)
def test_whitening_by_the_rollouts_depends_on_their_number(resources, rollouts, transforms, keeps):
    scorers = scorers_of(options(f"transforms={transforms}"), resources)
    assert scorers.score(rollouts).keeps_terms == keeps


@pytest.mark.parametrize(
    ("overrides", "have"),
    [
        ((), False),
        (("baseline=moving_average",), True),
        (("transforms=[{_component_: whiten_running}]",), True),
    ],
)
def test_parts_with_state_are_known(resources, overrides, have):
    assert scorers_of(options(*overrides), resources).have_state == have


def test_parts_with_state_have_one_for_each_set(resources, rollouts):
    """Both sets and the union see the same earlier steps: with common rollouts they agree."""
    scorers = scorers_of(options("baseline=moving_average", "sampler.n=4"), resources)
    same = part_of(rollouts, 0, 4)
    twice = torch.cat([same.tokens, same.tokens], 1)
    doubled = part_of(rollouts, 0, 8)
    object.__setattr__(doubled, "tokens", twice)
    object.__setattr__(doubled, "log_probs", torch.cat([same.log_probs] * 2, 1))
    object.__setattr__(doubled, "mask", torch.cat([same.mask] * 2, 1))
    for _ in range(3):
        first, second = scorers.score(doubled).halves
        assert torch.equal(first.advantages, second.advantages)


def test_the_gap_of_feature_matching_is_its_loss(resources, rollouts):
    scorers = scorers_of(options(), resources)
    features = scorers.score(rollouts).union.features
    expected = float(unbiased_cfm(features).mean())
    assert scorers.gap(rollouts) == pytest.approx(expected, rel=1e-4)


def test_the_gap_of_a_score_is_what_is_missing_to_the_references(resources, rollouts):
    changed = options("reward=token_overlap")
    scorers = scorers_of(changed, resources)
    mean = float(scorers.score(rollouts).union.terms.unary.mean())
    assert scorers.gap(rollouts) == pytest.approx(1 - mean, rel=1e-4)


def test_the_gap_of_completions_that_end(resources):
    documents = tiny_documents([12, 15], prompt_length=6)
    plan = Completion(rollout_length=4)
    contexts = divide(plan(documents), n=4, budget=10**6)
    rollouts = HfTree(n=4).build(resources)(contexts, step=0)
    scorers = scorers_of(options("reward=token_overlap"), resources)
    assert 0 < scorers.gap(rollouts) <= 1


def test_the_objective_counts_each_pair_once(resources, rollouts):
    scored = scorers_of(options(), resources).score(rollouts).union
    x, y = scored.features.samples.double(), scored.features.references[:, 0].double()
    products = torch.einsum("pid,pjd->pij", x, x)
    n = x.shape[1]
    pairs = (products.sum((1, 2)) - products.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))
    expected = (2 * torch.einsum("pid,pd->pi", x, y).mean(1) - pairs).mean()
    assert objective_of(scored) == pytest.approx(float(expected), rel=1e-4)
    assert isinstance(scored.features, Features)
