"""An evaluator that cannot measure what is chosen for it is found before any measures."""

from dataclasses import replace

import pytest

from ebft.errors import UserError
from ebft.evaluation.accuracy import Accuracy
from ebft.evaluation.cross_entropy import CrossEntropy
from ebft.evaluation.entropy_drift import EntropyDrift
from ebft.evaluation.sets import check_plans
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from tests.tiny import tiny_documents

SHORT = tiny_documents([12, 12], prompt_length=8)


def check(part, documents=SHORT, reads=None):
    check_plans([CrossEntropy(), part], documents, key="evaluation", reads=reads)


def test_a_plan_that_accepts_none():
    long = EntropyDrift(plan=Strided(start=10, stride=1, rollout_length=8))
    with pytest.raises(
        UserError, match=r"evaluation\.evaluators\.1: its plan accepts none of the 2"
    ):
        check(long)
    check(long, tiny_documents([12] * 300 + [18]))  # one is enough, wherever it stands


def test_rollouts_beyond_what_the_model_reads():
    documents = [*tiny_documents([12], prompt_length=7), *tiny_documents([12], prompt_length=8)]
    documents[1] = replace(documents[1], name="the longer prompt")
    for part in (EntropyDrift(plan=Completion(rollout_length=6)), Accuracy(rollout_length=6)):
        check(part, documents, reads=14)
        check(part, documents, reads=None)
        with pytest.raises(
            UserError,
            match=r"^evaluation\.evaluators\.1: in the longer prompt, rollouts of 6 tokens after 8 "
            r"end beyond the model.* 13",
        ):
            check(part, documents, reads=13)
