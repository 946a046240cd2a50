"""The parts that were tried keep to the objective, and the table says what was measured."""

import pytest
import torch
from hypothesis import given, settings

from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.rewards.feature_matching import FeatureMatching
from ebft.scoring.pairs import PairStatistic
from tests.benchmarks.signal import gain, merged, only
from tests.benchmarks.signal_parts import AcrossHalves, Arithmetic, Shrunk
from tests.benchmarks.signal_table import page
from tests.property.enumeration import expected_gradient, gradient_of
from tests.property.strategies import normal, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

TOGETHER = 8


@pytest.mark.parametrize("part", [AcrossHalves(), Shrunk(share=0.3)])
@settings(max_examples=5)
@given(seed=seeds)
def test_the_expected_gradient_is_that_of_the_loss(part, seed):
    logits, phi = normal(seed, 3), normal(seed + 1, 3, 2)
    truth = normal(seed + 2, 3).softmax(0)
    baseline = part.build(None)
    found = expected_gradient(logits, truth, phi, 4, lambda f: FeatureMatching()(None, f), baseline)
    exact = gradient_of(lambda p: (truth * (p @ phi - phi).square().sum(1)).sum(), logits)
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-9)


def test_arithmetic_rollouts_are_spread_out_and_are_the_policy_s():
    resources = tiny_resources(tiny_policy())
    contexts = Completion(rollout_length=4)(tiny_documents([19, 12], prompt_length=4))
    sampler = Arithmetic(n=2 * TOGETHER, together=TOGETHER).build(resources)
    rollouts = sampler(contexts, step=0)
    log_probs = tree_log_probs(resources.policy, rollouts).rollouts
    inside = rollouts.mask
    torch.testing.assert_close(rollouts.log_probs[inside], log_probs[inside], atol=1e-4, rtol=1e-4)
    first = rollouts.tokens[..., 0].unflatten(1, (2, TOGETHER))
    p = rollouts.log_probs[..., 0].unflatten(1, (2, TOGETHER)).exp()
    # Equal distances: a token of probability p is that of ⌊mp⌋ or ⌈mp⌉ of a group's m points.
    count = (first[..., None] == first[..., None, :]).sum(-1)
    assert ((count - TOGETHER * p).abs() < 1).all()
    assert (first[:, 0] != first[:, 1]).any()


def test_a_gain_is_noise_by_cost_with_an_interval_even_if_one_document_has_most_of_it():
    own = torch.tensor([1000.0, 1, 2, 1, 3, 2, 1, 2])
    noise, half = (PairStatistic.of_documents(x) for x in (own, own / 2 + normal(0, 8).abs() / 10))
    value, low, high = gain(noise, half, cost=1.25)
    assert value == pytest.approx(2 / 1.25, rel=0.01)
    assert 0 < low < value < high < 2
    rest = only(noise, torch.arange(1, 8))
    assert rest.value == pytest.approx(float(own[1:].mean()))


def test_the_page_has_a_row_for_each_variant():
    row = {"flop": 1.4, "noise_scale": None}
    compared = row | {"noise": 0.3, "gain": (2.5, 2.0, 3.0), "quiet": (2.0, 1.5, 2.5)}
    found = {
        "world": "programs", "documents": 9, "texts": 7, "measured": ["`measure`, commit abc"],
        "rows": [row | {"variant": "whitened"}, compared | {"variant": "n 8"}],
    }  # fmt: skip
    other = found | {"rows": [compared | {"variant": "n 2"}], "measured": ["again"]}
    lines = page([merged(found, other)]).splitlines()
    assert merged(found | {"documents": 8}, other) == other
    assert {"- `measure`, commit abc", "- again"} < set(lines)
    assert any(line.startswith("| n 2 |") for line in lines)
    assert "## programs: 9 documents of 7 texts" in lines
    assert "| whitened | 1.40 | another scale | not told |  |" in lines
    assert "| n 8 | 1.40 | 0.30 | 2.50 [2.00, 3.00] | 2.00 [1.50, 2.50] |" in lines
