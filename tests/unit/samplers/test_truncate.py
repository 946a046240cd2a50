"""Top-k and top-p, and that nobody uses them unawares."""

import pytest
import torch

from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.samplers.truncate import truncate
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

LOGITS = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.3, 0.2]], dtype=torch.float64).log()


def kept(**options):
    options = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    return truncate(LOGITS, **options).isfinite().tolist()


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({}, [1, 1, 1, 1], [1, 1, 1, 1]),
        ({"top_k": 9}, [1, 1, 1, 1], [1, 1, 1, 1]),
        ({"top_k": 2}, [0, 1, 1, 0], [1, 1, 1, 0]),  # a tie stays whole
        ({"top_k": 1}, [0, 1, 0, 0], [0, 0, 1, 0]),
        ({"top_p": 1.0}, [1, 1, 1, 1], [1, 1, 1, 1]),
        ({"top_p": 0.65}, [0, 1, 1, 0], [1, 1, 1, 0]),
        ({"top_p": 0.75}, [0, 1, 1, 1], [1, 1, 1, 0]),
        ({"top_p": 0.01}, [0, 1, 0, 0], [0, 0, 1, 0]),
        # Of the top two of the first row, the likelier has 4/7.
        ({"top_p": 0.56, "top_k": 2}, [0, 1, 0, 0], [1, 0, 1, 0]),
        # Nearly everything is on the likeliest token when it is cold.
        ({"top_p": 0.9, "temperature": 0.05}, [0, 1, 0, 0], [0, 0, 1, 0]),
    ],
)
def test_what_is_left(options, first, second):
    rows = kept(**options)
    assert rows[0] == [bool(x) for x in first]
    assert rows[1] == [bool(x) for x in second]


def test_of_equal_tokens_the_top_one_is_the_first():
    rows = kept(top_k=1)
    assert rows == [[False, True, False, False], [False, False, True, False]]
    tied = torch.tensor([[0.0, 2.0, 2.0, 2.0]])
    kept_of_tied = truncate(tied, temperature=1.0, top_k=1, top_p=None).isfinite()
    assert kept_of_tied.tolist() == [[False, True, False, False]]
    # Of more than one, equal tokens are treated alike.
    two = truncate(tied, temperature=1.0, top_k=2, top_p=None).isfinite()
    assert two.tolist() == [[False, True, True, True]]


def test_log_probs_are_of_the_truncated_distribution():
    contexts = Strided(start=3, stride=4, rollout_length=3)(tiny_documents([20]))
    sampler = HfTree(n=200, top_k=2).build(tiny_resources(tiny_policy()))
    rollouts = sampler(contexts, step=0)
    for p in range(len(contexts)):
        found = dict(
            zip(
                rollouts.tokens[p, :, 0].tolist(), rollouts.log_probs[p, :, 0].tolist(), strict=True
            )
        )
        assert len(found) == 2
        assert sum(torch.tensor(list(found.values())).exp()) == pytest.approx(1)


def test_the_whole_distribution_is_on_policy():
    assert HfTree().claim().unbiased
    assert HfTree(top_p=1.0).claim().unbiased
    assert not HfTree(top_k=5).claim().unbiased
