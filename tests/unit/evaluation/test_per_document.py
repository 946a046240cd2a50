"""From values of contexts to values of documents."""

import torch

from ebft.evaluation.rollouts import evenly, per_document
from ebft.plans.strided import Strided
from ebft.testing.tiny import tiny_documents, tiny_rollouts

PLAN = Strided(start=6, stride=4, rollout_length=2)


def test_each_document_has_the_weighted_mean_of_its_contexts():
    long, _, other = documents = tiny_documents([12, 5, 9])
    rollouts = tiny_rollouts(PLAN([long, other]), n=2, vocabulary=24)
    assert rollouts.contexts.row.tolist() == [0, 0, 1]
    values = torch.tensor([1.0, 4.0, 7.0])

    def each(given):
        assert given is rollouts
        return [evenly(values), (values, torch.tensor([2.0, 1.0, 0.0]))]

    even, weighted = per_document(documents, rollouts, each, figures=2)
    assert [column.tolist() for column in even] == [[2.5, 0, 7], [2, 0, 1]]
    assert [column.tolist() for column in weighted] == [[2, 0, 0], [3, 0, 0]]


def test_without_rollouts_there_is_nothing_to_compute():
    def never(_):
        raise AssertionError("it was called")

    found = per_document(tiny_documents([3, 4]), None, never, figures=3)
    assert [column.tolist() for pair in found for column in pair] == [[0, 0]] * 6
