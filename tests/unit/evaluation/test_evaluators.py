"""Evaluators on a tiny policy: each document by itself, whatever the others are."""

import json
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from ebft.errors import NumericalError, UserError
from ebft.evaluation.accuracy import Accuracy
from ebft.evaluation.cross_entropy import CrossEntropy
from ebft.evaluation.entropy_drift import EntropyDrift
from ebft.evaluation.feature_matching_by_length import FeatureMatchingByLength
from ebft.evaluation.feature_matching_loss import FeatureMatchingLoss
from ebft.evaluation.history import History
from ebft.evaluation.kernel_score import KernelScoreEvaluation
from ebft.evaluation.labelled import build_evaluator
from ebft.evaluation.measure import EvaluationSet, clusters, measure
from ebft.evaluation.rollouts import EvaluationRollouts
from ebft.features.bag_of_tokens import BagOfTokens
from ebft.features.hidden_states import HiddenStates
from ebft.models.log_probs import logits
from ebft.parts.measurements import Measurement
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.records import Document
from ebft.scoring.interval import mean_interval
from ebft.testing.tiny import tiny_documents, tiny_policy, tiny_resources, tiny_tokenizer
from ebft.verifiers.attempts import cut

PLAN = Strided(start=6, stride=4, rollout_length=8)
FEATURES = HiddenStates(depths=(0.5, 1.0))
EVALUATORS = {
    "cross_entropy": CrossEntropy(tokens="all"),
    "feature_matching_loss": FeatureMatchingLoss(plan=PLAN, feature_map=FEATURES),
    "feature_matching_by_length": FeatureMatchingByLength(
        plan=PLAN, feature_map=FEATURES, lengths=(2, 4, 8)
    ),
    "kernel_score": KernelScoreEvaluation(plan=PLAN, feature_map=FEATURES),
    "rbf": KernelScoreEvaluation(plan=PLAN, feature_map=FEATURES, kernel="rbf", bandwidth=0.5),
    "entropy_drift": EntropyDrift(plan=PLAN),
}


@pytest.fixture(scope="module")
def resources():
    return tiny_resources(tiny_policy())


@pytest.mark.parametrize("name", EVALUATORS)
def test_each_document_by_itself(resources, name):
    evaluator = EVALUATORS[name].build(resources)
    documents = tiny_documents([20, 9, 17, 30])  # the second is too short for the plan
    together = evaluator(resources.policy, documents)
    apart = [evaluator(resources.policy, [document]) for document in documents]
    for i, measurement in enumerate(together):
        assert measurement.value.shape == measurement.weight.shape == (4,)
        for field in ("value", "weight"):
            alone = torch.cat([getattr(measured[i], field) for measured in apart])
            torch.testing.assert_close(getattr(measurement, field), alone)
        assert (measurement.weight[1] == 0) == (name != "cross_entropy")
        assert measurement.value.isfinite().all()


def test_by_length_the_longest_is_the_loss_itself(resources):
    documents = tiny_documents([20, 24])
    by_length = EVALUATORS["feature_matching_by_length"].build(resources)
    *_, longest = by_length(resources.policy, documents)
    (loss,) = EVALUATORS["feature_matching_loss"].build(resources)(resources.policy, documents)
    assert (longest.name, longest.at) == ("CFM of 8 tokens", 8)
    torch.testing.assert_close(longest.value, loss.value)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_the_first_tokens_of_a_rollout_are_a_shorter_rollout(resources, length):
    documents = tiny_documents([20, 24])
    plan = Strided(start=6, stride=4, rollout_length=length)
    contexts = PLAN(documents)
    whole = EvaluationRollouts(PLAN, resources, n=3)(resources.policy, documents)
    first = whole.first(length)
    short = EvaluationRollouts(plan, resources, n=3)(resources.policy, documents)
    # A shorter rollout leaves room for more anchors; the first of each document are the same.
    same = [
        p
        for p, (row, anchor) in enumerate(zip(*where(short.contexts), strict=True))
        if (row, anchor) in set(zip(*where(contexts), strict=True))
    ]
    assert torch.equal(first.tokens, short.tokens[same])
    assert torch.equal(first.contexts.reference, short.contexts.reference[same])
    assert torch.equal(first.contexts.reference_mask, short.contexts.reference_mask[same])


def where(contexts):
    return contexts.row.tolist(), contexts.anchor.tolist()


def test_lengths_and_plan_go_together():
    with pytest.raises(ValidationError, match=r"plan.rollout_length = 8 is not the longest"):
        FeatureMatchingByLength(plan=PLAN, feature_map=BagOfTokens(), lengths=(4, 16))


@torch.no_grad()
def test_entropy_is_that_of_the_policy(resources):
    """At the first position the mean of −log p over many draws is the distribution's entropy."""
    (document,) = tiny_documents([10])
    plan = Strided(start=6, stride=4, rollout_length=2)
    entropy, _, reference, _ = EntropyDrift(plan=plan, n=4000).build(resources)(
        resources.policy, [document]
    )
    tokens = document.tokens[None]
    log_p = logits(
        resources.policy, resources.policy.base_model(tokens).last_hidden_state[0]
    ).log_softmax(-1)
    assert reference.value.item() == pytest.approx(
        -float(log_p[5, tokens[0, 6]] + log_p[6, tokens[0, 7]]) / 2
    )
    first = float(torch.special.entr(log_p[5].exp()).sum())
    second = 2 * entropy.value.item() - first
    every = torch.cat([tokens[:, :6].expand(24, -1), torch.arange(24)[:, None]], 1)
    after = logits(
        resources.policy, resources.policy.base_model(every).last_hidden_state[:, -1]
    ).softmax(-1)
    expected = float((log_p[5].exp() * torch.special.entr(after).sum(-1)).sum())
    assert second == pytest.approx(expected, abs=0.1)


class TestAccuracy:
    @pytest.fixture
    def documents(self):
        tokenizer = tiny_tokenizer()
        return [
            Document(f"d{i}", torch.tensor([*tokenizer(text).input_ids, 1]), 3, check="assert 1")
            for i, text in enumerate(("abcdef", "bcdefg", "cdefgh"))
        ]

    def test_greedy_is_what_the_policy_finds_likeliest(self, resources, documents):
        plan = Completion(rollout_length=4)
        greedy = EvaluationRollouts(plan, resources, n=1, top_k=1)(resources.policy, documents)
        for i, document in enumerate(documents):
            tokens = document.tokens[None, :3]
            for t in range(4):
                hidden = resources.policy.base_model(tokens).last_hidden_state[:, -1]
                token = logits(resources.policy, hidden).argmax(-1)
                assert token.item() == greedy.tokens[i, 0, t].item()
                tokens = torch.cat([tokens, token[None]], 1)

    def test_counts_become_estimates(self, resources, documents):
        options = Accuracy(verifier=f"{__name__}:starts_early", rollout_length=4, n=8, k=(1, 8))
        greedy, one, eight = options.build(resources)(resources.policy, documents)
        assert [m.name for m in (greedy, one, eight)] == ["accuracy (greedy)", "pass@1", "pass@8"]
        assert set(greedy.value.tolist()) <= {0.0, 1.0}
        assert 0 < one.value.mean() < 1
        assert torch.equal(eight.value, (one.value > 0).double()), "one of eight passes, or none"
        assert torch.equal(one.value * 8, (one.value * 8).round())

    def test_raw_text_has_no_completion(self, resources):
        options = Accuracy(verifier="exact_match", rollout_length=4, n=0)
        (greedy,) = options.build(resources)(resources.policy, tiny_documents([8, 9]))
        assert not greedy.weight.any()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"n": 4}, "needs n >= 16"),
            ({"greedy": False, "n": 0}, "nothing would be measured"),
            ({"verifier": "unit_test"}, "did you mean 'unit_tests'"),
        ],
    )
    def test_options_that_make_no_sense(self, options, says):
        with pytest.raises(ValidationError, match=says):
            Accuracy(**options)

    def test_a_completion_ends_where_it_is_told_to(self):
        assert cut("return x\n\ndef g(): pass\n# done", ("\n#", "\ndef ")) == "return x\n"
        assert cut("return x", ("\ndef ",)) == "return x"


def starts_early(attempt):
    return float(attempt.rollout.strip() < "h")


def test_a_document_that_comes_twice_is_measured_twice(resources):
    """As a process does that has fewer documents than the others."""
    evaluator = EVALUATORS["feature_matching_loss"].build(resources)
    short, one = tiny_documents([4, 22])
    [measured] = evaluator(resources.policy, [short, one, one])
    assert measured.weight.tolist() == [0, 3, 3]
    assert measured.value[1] == measured.value[2] != 0


class TestTwoOfAKind:
    def means(self, resources, *parts):
        evaluators = [build_evaluator(part, resources) for part in parts]
        sets = [EvaluationSet("held-out", tiny_documents([20, 17]), evaluators)]
        measured = measure(resources.policy, sets, micro_batch=MicroBatch(1), steps_done=0)
        return {name: mean_interval(found).mean for name, found in measured.items()}

    def test_are_refused_if_their_figures_have_one_name(self, resources):
        """They would be taken for the figures of one."""
        with pytest.raises(UserError, match=r"two of them measure CE; give one a label"):
            self.means(resources, CrossEntropy(), CrossEntropy(tokens="all"))

    def test_are_told_apart_by_a_label(self, resources):
        other = HiddenStates(depths=(0.25,))
        both = [
            FeatureMatchingLoss(plan=PLAN, feature_map=FEATURES),
            FeatureMatchingLoss(plan=PLAN, feature_map=other, label="first layer"),
        ]
        means = self.means(resources, *both)
        assert list(means) == ["held-out CFM", "held-out CFM (first layer)"]
        (alone,) = self.means(resources, both[1]).values()
        assert means["held-out CFM (first layer)"] == pytest.approx(alone)
        assert means["held-out CFM"] != pytest.approx(alone)


def test_pieces_of_a_file_count_together(resources, tmp_path):
    """In the interval, in the file of figures, and after a resume."""
    pieces = [replace(d, cluster="a.py") for d in tiny_documents([20, 17])]
    whole = replace(tiny_documents([18])[0], name="b")
    sets = [EvaluationSet("held-out", [whole, *pieces], [CrossEntropy().build(resources)])]
    history, resumed = (History(sets, tmp_path / name) for name in "ab")
    history.add(0, measure(resources.policy, sets, micro_batch=MicroBatch(2), steps_done=0))
    resumed.load_state_dict(history.state_dict())
    (line,) = (tmp_path / "a").read_text().splitlines()
    assert json.loads(line)["clusters"] == [0, 1, 1]
    assert (tmp_path / "b").read_text() == line + "\n"
    measured = history.first["held-out CE"]
    assert mean_interval(measured).count == 2
    assert measured.value.numel() == 3


class Fixed:
    """An evaluator that finds what it is told to."""

    def __init__(self, value, weight):
        self.value, self.weight = torch.tensor(value), torch.tensor(weight)

    def __call__(self, policy, documents):
        return [Measurement("x", "nats", self.value, self.weight)]


class TestNaN:
    def sets(self, value, weight):
        return [EvaluationSet("held-out", tiny_documents([5, 6]), [Fixed(value, weight)])]

    def measured(self, sets):
        return measure(None, sets, micro_batch=MicroBatch(2), steps_done=4)

    def test_without_weight_counts_for_nothing(self, tmp_path):
        sets = self.sets([3.0, float("nan")], [2.0, 0.0])
        history = History(sets, tmp_path / "evaluations.jsonl")
        for steps_done in (0, 4):
            history.add(steps_done, self.measured(sets))
        assert history.means(4) == {"held-out x": 3.0}
        assert [change.mean for _, change in history.changes("held-out x")] == [0, 0]

    @pytest.mark.parametrize(
        ("value", "weight"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))]
    )
    def test_with_weight_stops_the_run(self, value, weight):
        says = "evaluation after step 4: held-out x is NaN or infinite in document doc1"
        with pytest.raises(NumericalError, match=says):
            self.measured(self.sets([3.0, value], [1.0, weight]))


def test_completions_of_a_prompt_count_together_unless_all_have_the_same():
    a, b, c = (
        replace(d, tokens=torch.tensor([start, 5, d.tokens[-1]]), prompt_length=2)
        for d, start in zip(tiny_documents([3, 3, 3]), [7, 7, 8], strict=True)
    )
    assert clusters([a, b, c]).tolist() == [0, 0, 1]
    assert clusters([a, b]).tolist() == [0, 1]
    assert clusters([a, replace(c, cluster="f"), replace(b, cluster="f")]).tolist() == [0, 1, 1]
