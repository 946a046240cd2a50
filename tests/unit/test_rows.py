"""Rows of texts: every token of a row of trees once, in batches of about the tree's size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.rows import as_rows, pack_padded, to_columns
from ebft.rollout.tree import grow, plant
from ebft.testing.tiny import tiny_rollouts
from tests.tiny import tiny_documents

PLANS = [Strided(start=2, stride=3, rollout_length=4), Completion(rollout_length=5)]


@pytest.mark.parametrize("plan", PLANS, ids=["strided", "completion"])
@pytest.mark.parametrize("n", [1, 3])
def test_each_row_is_a_document_or_a_prefix_with_its_rollout(plan, n):
    contexts = plan(tiny_documents([20, 9, 13], prompt_length=6))
    rollouts = tiny_rollouts(contexts, n)
    tree = grow(rollouts, steps=contexts.rollout_length)
    texts = [
        tuple(row[there].tolist())
        for batch in as_rows(tree.mask)
        for row, there in zip(tree.tokens[0, batch.column], batch.there, strict=True)
    ]
    expected = [tuple(document.tokens.tolist()) for document in contexts.documents]
    for p, (row, anchor) in enumerate(
        zip(contexts.row.tolist(), contexts.anchor.tolist(), strict=True)
    ):
        prefix = contexts.documents[row].tokens[:anchor]
        expected += [tuple(torch.cat([prefix, branch]).tolist()) for branch in rollouts.tokens[p]]
    assert sorted(texts) == sorted(expected)


@pytest.mark.parametrize("plan", PLANS, ids=["strided", "completion"])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_values_come_back_to_their_columns(plan, steps):
    contexts = plan(tiny_documents([20, 9, 13], prompt_length=6))
    tree = plant(contexts, n=2, steps=steps)
    batches = as_rows(tree.mask)
    values = [batch.column[batch.own][:, None].double() for batch in batches]
    columns = to_columns(values, batches)
    assert torch.equal(columns[:, 0], torch.arange(tree.mask.columns).double())


def test_a_batch_has_no_more_tokens_than_the_tree():
    contexts = PLANS[0](tiny_documents([30, 30, 12]))
    mask = plant(contexts, n=4, steps=4).mask
    sizes = [batch.own.numel() for batch in as_rows(mask)]
    assert len(sizes) > 1
    assert max(sizes) <= mask.columns


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 60))
def test_texts_are_packed_in_order_and_as_many_as_fit(lengths, budget):
    lengths.sort()
    counts = pack_padded(lengths, budget)
    assert sum(counts) == len(lengths)
    ends = torch.tensor(counts).cumsum(0).tolist()
    for i, (count, end) in enumerate(zip(counts, ends, strict=True)):
        assert count == 1 or count * lengths[end - 1] <= budget
        if i:
            fits = (counts[i - 1] + 1) * lengths[end - count] <= budget
            assert not fits, "the next would have fitted"
