"""A merged tree gives what the whole tree gives, with each distinct token computed once."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.models.forward import decode
from ebft.rollout.merge import distinct, grow_merged
from ebft.rollout.records import Rollouts
from ebft.rollout.tree import grow
from tests.property.test_tree import contexts, prefixes, prefixes_of_document
from tests.tiny import tiny_policy

POLICY = tiny_policy()


@st.composite
def alike(draw) -> Rollouts:
    """Rollouts of few different tokens, some of which are what the document continues with."""
    c = draw(contexts())
    n, G = draw(st.integers(1, 4), label="n"), c.rollout_length
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    tokens = torch.randint(draw(st.integers(1, 3)), (len(c), n, G), generator=generator)
    until = torch.randint(G + 1, (len(c), n, 1), generator=generator)
    tokens = c.reference[:, None].where(torch.arange(G) < until, tokens)
    ends = torch.randint(1, G + 1, (len(c), n, 1), generator=generator)
    mask = torch.arange(G) < ends
    tokens = tokens.where(mask, 0)
    return Rollouts(c, tokens, torch.zeros(tokens.shape, dtype=torch.float64), mask, 1.0)


@given(alike())
@settings(max_examples=60)
def test_hidden_states_are_those_of_the_whole_tree(r):
    steps = r.tokens.shape[-1]
    whole, merged = grow(r, steps=steps), grow_merged(r, steps=steps)
    with torch.no_grad():
        expected, found = (
            decode(POLICY, t.tokens, t.positions, t.mask)[0] for t in (whole, merged)
        )
    for name in ("rollout_at", "logit_index", "trunk_at", "context_at", "reference_at"):
        there, here = expected[getattr(whole, name)], found[getattr(merged, name)]
        if name in ("rollout_at", "logit_index"):
            first = torch.ones_like(r.mask[..., : name == "logit_index"])
            inside = torch.cat([first, r.mask], -1)
            there, here = there[inside], here[inside]
        torch.testing.assert_close(here, there, atol=1e-9, rtol=0)


@given(alike())
@settings(max_examples=60)
def test_each_distinct_token_is_computed_once(r):
    once = distinct(r.tokens, r.mask)
    assert int(once.kept.sum()) == len(prefixes(r))
    marks = torch.arange(int(once.kept.sum()), dtype=torch.float64)
    spread = once.spread(marks)
    of_prefix: dict[tuple, set[float]] = {}
    for p, j, t in r.mask.nonzero().tolist():
        prefix = p, *r.tokens[p, j, : t + 1].tolist()
        of_prefix.setdefault(prefix, set()).add(float(spread[p, j, t]))
    assert all(len(numbers) == 1 for numbers in of_prefix.values())
    assert len(set().union(*of_prefix.values())) == len(of_prefix)


@given(alike())
@settings(max_examples=60)
def test_a_rollout_that_follows_the_document_costs_nothing(r):
    c = r.contexts
    merged = grow_merged(r, steps=r.tokens.shape[-1])
    if merged.mask.merged is not None:
        own = prefixes(r) - prefixes_of_document(c)
        assert merged.tokens.numel() == int(c.lengths.sum()) + len(own)


def test_rollouts_that_have_nothing_in_common_are_left_as_they_are():
    from ebft.plans.strided import Strided
    from tests.tiny import tiny_documents

    c = Strided(start=5, stride=50, rollout_length=3)(tiny_documents([8]))
    document = c.reference[0]
    tokens = torch.stack([document + 1, document + 2])[None]
    r = Rollouts(
        c, tokens, torch.zeros(tokens.shape), torch.ones_like(tokens, dtype=torch.bool), 1.0
    )
    assert grow_merged(r, steps=3).mask.merged is None
    r = replace(r, tokens=tokens[:, :1].expand(1, 2, 3))
    assert grow_merged(r, steps=3).tokens.numel() == 8 + 3
