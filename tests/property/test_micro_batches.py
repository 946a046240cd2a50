"""Micro-batches: whole documents in order, within the budget, as many in every process."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ebft.distributed.processes import OneProcess
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.micro_batches import (
    ENOUGH,
    TOGETHER,
    decoded_together,
    divide,
    joined,
    pack,
    spread,
    tree_tokens,
)
from ebft.rollout.tree import plant
from tests.tiny import tiny_documents

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=12)
PLANS = st.sampled_from(
    [Strided(start=2, stride=3, rollout_length=4), Completion(rollout_length=5)]
)


def parts(items, counts):
    assert sum(counts) == len(items)
    assert min(counts) >= 1
    items = iter(items)
    return [[next(items) for _ in range(count)] for count in counts]


@given(SIZES, st.integers(1, 60))
def test_packed_within_the_budget_and_no_two_neighbours_would_fit_together(sizes, budget):
    packed = parts(sizes, pack(sizes, budget))
    assert all(sum(part) <= budget or len(part) == 1 for part in packed)
    assert all(sum(part) + following[0] > budget for part, following in pairwise(packed))


@given(SIZES, st.integers(1, 60), st.data())
def test_spread_over_more_parts_they_stay_within_it(sizes, budget, data):
    counts = pack(sizes, budget)
    wanted = data.draw(st.integers(len(counts), len(sizes)))
    spreaded = spread(counts, wanted)
    assert len(spreaded) == wanted
    assert all(sum(part) <= budget or len(part) == 1 for part in parts(sizes, spreaded))


class Other(OneProcess):
    """A process beside another that needs so many micro-batches."""

    def __init__(self, needs):
        self._needs = needs

    def gather(self, values):
        return values.new_tensor([*values.tolist(), self._needs])


@given(PLANS, st.lists(st.integers(7, 30), min_size=1, max_size=5), st.integers(0, 3), st.data())
def test_contexts_are_divided_by_the_tokens_of_their_trees(plan, lengths, n, data):
    contexts = plan(tiny_documents(lengths, prompt_length=3))
    sizes = tree_tokens(contexts, n)
    budget = data.draw(st.integers(1, sum(sizes)))
    other = data.draw(st.integers(1, len(lengths)))
    divided = divide(contexts, n=n, budget=budget, processes=Other(other))
    assert len(divided.micro_batches) == max(len(pack(sizes, budget)), other)
    seen, place = [], 0
    for at, part in divided.split():
        assert at.start == place
        place = at.stop
        assert len(part) == at.stop - at.start
        tree = plant(part, n=n, steps=part.rollout_length)
        tokens = tree.tokens.numel()
        assert tokens == sum(tree_tokens(part, n))
        assert tokens <= budget or len(part.documents) == 1
        assert part.tokens.shape[1] == int(part.lengths.max())
        seen += part.documents
    assert place == len(contexts)
    assert tuple(seen) == contexts.documents


@given(st.lists(st.integers(7, 30), min_size=1, max_size=9), st.integers(1, 40), st.data())
def test_micro_batches_decode_together_until_there_are_enough_branches(lengths, n, data):
    contexts = Strided(start=2, stride=3, rollout_length=4)(tiny_documents(lengths))
    counts = pack([1] * len(lengths), data.draw(st.integers(1, len(lengths))))
    found = joined(contexts.divided(counts), n=n).micro_batches
    size = decoded_together(len(contexts) * n // len(counts))
    assert found == tuple(sum(counts[i : i + size]) for i in range(0, len(counts), size))
    assert 1 <= size <= TOGETHER
    assert size == 1 or size * (len(contexts) * n // len(counts)) <= ENOUGH
    assert decoded_together(0) == TOGETHER
    assert decoded_together(ENOUGH) == decoded_together(ENOUGH + 1) == 1
