"""Rewards that look at tokens and texts, and sums of rewards."""

import pytest
import torch
from pydantic import ValidationError

from ebft.plugins import load_registry
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rewards.token_overlap import ngram_f1
from ebft.rewards.verifiable import Verifiable
from ebft.rewards.weighted_sum import WeightedSum
from ebft.rollout.completion import Completion
from ebft.rollout.records import Document, Features, Rollouts
from ebft.sandbox import SandboxOptions
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import exact_match, function_tests, unit_tests
from tests.tiny import tiny_resources, tiny_tokenizer


def f1(tokens, reference, order=1, length=None, reference_length=None):
    tokens, reference = torch.tensor(tokens), torch.tensor(reference)
    mask = torch.arange(len(tokens)) < (length or len(tokens))
    reference_mask = torch.arange(len(reference)) < (reference_length or len(reference))
    args = (tokens[None, None], mask[None, None], reference[None, None], reference_mask[None, None])
    return float(ngram_f1(*args, order))


@pytest.mark.parametrize(
    ("tokens", "reference", "order", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1, 1),
        ([3, 1, 2], [1, 2, 3], 1, 1),
        ([3, 1, 2], [1, 2, 3], 2, 1 / 2),  # the bigram 1 2, of two
        ([1, 1, 1], [1, 2, 3], 1, 1 / 3),  # the second 1 has no partner left
        ([1, 1, 2], [1, 1, 3], 1, 2 / 3),
        ([4, 5, 6], [1, 2, 3], 1, 0),
        ([1, 2], [1, 2, 3, 4], 1, 2 * 2 / 6),
        ([1, 2], [1, 2], 3, 0),
    ],
)
def test_ngram_f1(tokens, reference, order, expected):
    assert f1(tokens, reference, order) == pytest.approx(expected)
    assert f1(reference, tokens, order) == pytest.approx(expected), "F1 is symmetric"


def test_tokens_after_the_end_do_not_count():
    assert f1([1, 2, 9, 9], [1, 2, 9], length=2, reference_length=2) == 1
    assert f1([1, 9], [1, 2], length=1) == pytest.approx(2 / 3)


@pytest.fixture
def rollouts():
    """Two documents 'a|b c' and 'd|e'; the first rollout of each is right."""
    tokenizer = tiny_tokenizer()

    def ids(text):
        return tokenizer(text).input_ids

    documents = [
        Document("one", torch.tensor(ids("abc")), 1, check="check one"),
        Document("two", torch.tensor(ids("de")), 1, check="check two"),
    ]
    contexts = Completion(rollout_length=2)(documents)
    tokens = torch.tensor([[ids("bc"), ids("cb")], [ids("ee"), ids("fe")]])
    mask = torch.tensor([[[True, True], [True, True]], [[True, False], [True, False]]])
    return Rollouts(contexts, tokens, torch.zeros(2, 2, 2), mask, 1.0)


def resources():
    made = tiny_resources(None)
    object.__setattr__(made, "tokenizer", tiny_tokenizer())
    return made


def test_exact_match_of_texts(rollouts):
    reward = Verifiable().build(resources())
    terms = reward(rollouts, None)
    assert terms.unary.tolist() == [[1, 0], [1, 0]]
    assert not terms.pairwise.any()


def test_a_reference_that_is_longer_than_rollouts_is_not_met_by_its_beginning():
    tokenizer = tiny_tokenizer()
    contexts = Completion(rollout_length=2)(
        [Document("one", torch.tensor(tokenizer("abcdef")["input_ids"]), 1)]
    )
    tokens = torch.tensor([[tokenizer(text)["input_ids"] for text in ("bc", "cb")]])
    rollouts = Rollouts(contexts, tokens, torch.zeros(1, 2, 2), torch.ones(1, 2, 2).bool(), 1.0)
    assert Verifiable().build(resources())(rollouts, None).unary.tolist() == [[0, 0]]


def seen(attempt):
    """A user's verifier: any function of an attempt."""
    assert isinstance(attempt, Attempt)
    assert attempt.check == f"check {attempt.document}"
    return len(attempt.context) + 10 * attempt.check.count("check")


def test_any_function_verifies(rollouts):
    reward = Verifiable(verifier=f"{__name__}:seen").build(resources())
    assert reward(rollouts, None).unary.tolist() == [[11, 11], [11, 11]]


@pytest.mark.parametrize(
    ("verifier", "says"),
    [
        ("exact_mtach", "did you mean 'exact_match'"),
        ("a.b.c", "cannot be imported: No module named 'a'"),
        ("math.pi", "is not a function"),
    ],
)
def test_a_verifier_that_is_not_there(verifier, says):
    with pytest.raises(ValidationError, match=says):
        Verifiable(verifier=verifier)


def test_white_space_around_is_no_mismatch():
    assert exact_match(Attempt("", " x\n", "x", "", "d")) == 1
    assert exact_match(Attempt("", "x y", "xy", "", "d")) == 0


def test_unit_tests_run_the_program():
    context, check = "def f(x):\n", "assert f(2) == 4\nassert f(3) == 9"
    assert unit_tests(Attempt(context, "    return x * x", "", check, "d"), SandboxOptions()) == 1
    assert unit_tests(Attempt(context, "    return x + x", "", check, "d"), SandboxOptions()) == 0


def test_function_tests_run_the_function_and_not_what_comes_after_it():
    check = "assert square(3) == 9"
    context = "def square(x):\n"
    rollout = "    return x * x\n\nthis is no Python"
    assert function_tests(Attempt(context, rollout, "", check, "d"), SandboxOptions()) == 1
    assert unit_tests(Attempt(context, rollout, "", check, "d"), SandboxOptions()) == 0
    wrong = rollout.replace("*", "+")
    assert function_tests(Attempt(context, wrong, "", check, "d"), SandboxOptions()) == 0


def test_a_weighted_sum_from_a_recipe(rollouts):
    section = {
        "_component_": "weighted_sum",
        "rewards": [
            {"weight": 2.0, "reward": {"_component_": "token_overlap"}},
            {"weight": 0.5, "reward": {"_component_": "feature_matching", "diversity": 0.0}},
        ],
    }
    part = load_registry().parse("rewards", section)
    assert isinstance(part, WeightedSum)
    assert not part.pairwise()
    assert not part.claim().unbiased, "α_a ≠ α_d inside"
    features = Features(torch.ones(2, 2, 3), torch.ones(2, 1, 3))
    terms = part.build(resources())(rollouts, features)
    # 2·F1 + 0.5·2·3: the second of each shares all tokens, and none.
    assert terms.unary.tolist() == [[5, 5], [5, 3]]


def test_a_weighted_sum_compares_rollouts_if_one_of_them_does():
    matching = FeatureMatching()
    assert WeightedSum(rewards=[{"weight": 1, "reward": matching}]).pairwise()
    assert not WeightedSum(rewards=[{"weight": 0, "reward": matching}]).pairwise()
    assert WeightedSum(rewards=[{"weight": 1, "reward": matching}]).claim().unbiased


def test_a_sum_with_a_reward_that_claims_nothing_claims_nothing():
    class Silent(FeatureMatching):
        """feature_matching, whose author has not said."""

        def claim(self):
            return None

    biased = {"reward": FeatureMatching(diversity=0.5)}
    assert WeightedSum(rewards=[{"reward": Silent()}]).claim() is None
    assert not WeightedSum(rewards=[{"reward": Silent()}, biased]).claim().unbiased
