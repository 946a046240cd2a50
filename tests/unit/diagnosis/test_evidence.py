import pytest
import torch

from ebft.config.load import load_recipe
from ebft.diagnosis.evidence import Measurer, evidence_of_documents, gather_rollouts
from ebft.diagnosis.quality import overlap
from ebft.diagnosis.sets import draw_both
from ebft.errors import NumericalError
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.scoring.within_contexts import kendall_tau
from ebft.training.objective import ObjectiveOptions
from ebft.training.sketch import Sketch
from tests.conftest import RECIPES
from tests.tiny import tiny_documents, tiny_policy, tiny_resources
from tests.unit.diagnosis.test_sets import scorers_of
from tests.unit.training.test_gradients import norm_of

PLAN = Strided(start=4, stride=5, rollout_length=3)
OBJECTIVE = ObjectiveOptions(gamma=0.0)
N = 3


@pytest.fixture(scope="module")
def measured():
    """Five documents with one to five contexts, in steps of two."""
    resources = tiny_resources(tiny_policy())
    documents = tiny_documents([20, 9, 14, 30, 11])
    sampler = HfTree(n=2 * N).build(resources)
    steps = [
        draw_both(sampler, PLAN, documents[at : at + 2], resources, budget=10**6)
        for at in (0, 2, 4)
    ]
    options = load_recipe(RECIPES / "ebft_full.yaml", [f"sampler.n={N}"]).options
    calls = []
    measurer = Measurer(
        resources.policy, Sketch(resources.policy.parameters(), seed=0), torch.float32,
        gradient_checkpointing=False, advance=lambda: calls.append(1),
    )  # fmt: skip
    cross_entropy = measurer.cross_entropy(PLAN(documents), OBJECTIVE)

    def gather(*, unbiased=True, qualities=()):
        return gather_rollouts(
            measurer, scorers_of(options, resources), steps, cross_entropy, OBJECTIVE,
            unbiased=unbiased, qualities=dict(qualities),
        )  # fmt: skip

    return resources, options, documents, sampler, cross_entropy, gather, calls


def test_the_mean_over_documents_is_the_gradient_of_one_step(measured):
    """Though contexts are unequal, and documents were measured in steps of two."""
    resources, options, documents, sampler, _, gather, _ = measured
    found = gather()
    whole = draw_both(sampler, PLAN, documents, resources, budget=10**6)
    scored = scorers_of(options, resources).score(whole)
    for half, of_half in zip(scored.halves, (0, 1), strict=True):
        norm = norm_of((resources.policy, half.rollouts, half.advantages), gamma=0.0)
        mean_squared = float(found.sets[:, of_half, :, of_half].mean())
        assert mean_squared == pytest.approx(norm**2, rel=1e-4)
    union = scored.union
    norm = norm_of((resources.policy, union.rollouts, union.advantages), gamma=0.0)
    assert float(found.union.mean()) == pytest.approx(norm**2, rel=1e-4)


def test_the_cross_entropy_is_that_of_one_step(measured):
    resources, options, documents, sampler, cross_entropy, _, _ = measured
    union = (
        scorers_of(options, resources)
        .score(draw_both(sampler, PLAN, documents, resources, budget=10**6))
        .union
    )
    norm = norm_of((resources.policy, union.rollouts, 0 * union.advantages), gamma=1.0)
    assert float(cross_entropy.mean(0).norm()) == pytest.approx(norm, rel=1e-4)
    evidence = evidence_of_documents(cross_entropy, None, None)
    assert float(evidence.cross_entropy.mean()) == pytest.approx(norm**2, rel=1e-4)


def test_documents_are_in_order_and_each_gradient_is_reported(measured):
    *_, gather, calls = measured
    del calls[:]
    found = gather()
    assert len(calls) == 3 * 5
    # Documents with four and five contexts have longer gradients than one with one.
    squared = found.union.diagonal()
    assert squared[1] == squared.min()
    assert found.gap > 0
    assert found.spread.tolist()[3][2] == 5


def test_a_baseline_that_is_biased_has_no_union(measured):
    *_, gather, calls = measured
    del calls[:]
    found = gather(unbiased=False)
    assert (found.union, found.gap) == (None, None)
    assert len(calls) == 2 * 5
    mean = found.sets.mean((1, 3))
    assert torch.allclose(mean, mean.mT)


def test_the_reward_is_compared_with_qualities(measured):
    *_, gather, _ = measured
    found = gather(qualities={"overlap": overlap, "none": lambda r: torch.ones(r.tokens.shape[:2])})
    assert found.ranks["overlap"].shape == (5, 3)
    assert -1 <= kendall_tau(found.ranks["overlap"].sum(0).tolist()) <= 1
    assert found.ranks["none"][:, 2].tolist() == [0.0] * 5
    pairs = N * (N - 1) / 2
    assert found.ranks["overlap"][3, 1] <= 2 * 5 * pairs


def test_what_is_not_finite_is_an_error():
    bad = torch.ones(3, 4)
    bad[1, 2] = float("nan")
    with pytest.raises(NumericalError, match="document number 2 has NaN"):
        evidence_of_documents(bad, None, None)
