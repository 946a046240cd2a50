"""The invariant everything rests on: a tree gives what independent rows give."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.features.hidden_states import HiddenStates
from ebft.models import forward, log_probs
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree import grow
from ebft.samplers.hf_tree import HfTree
from ebft.training.objective import cross_entropy_mask, policy_gradient_loss
from tests.tiny import VOCAB, at_a_time, tiny_documents, tiny_policy, tiny_resources

POLICY = tiny_policy()


@st.composite
def contexts(draw) -> Contexts:
    G = draw(st.integers(1, 5), label="G")
    if draw(st.booleans(), label="completion"):
        lengths = draw(st.lists(st.integers(4, 20), min_size=1, max_size=3), label="lengths")
        return Completion(rollout_length=G)(tiny_documents(lengths, prompt_length=3))
    start = draw(st.integers(1, 6), label="start")
    lengths = draw(
        st.lists(st.integers(start + G, start + G + 20), min_size=1, max_size=3), label="lengths"
    )
    plan = Strided(start=start, stride=draw(st.integers(1, 6)), rollout_length=G)
    return plan(tiny_documents(lengths))


@st.composite
def rollouts(draw) -> Rollouts:
    c = draw(contexts())
    n = draw(st.integers(1, 3), label="n")
    temperature = draw(st.sampled_from([0.6, 1.0, 1.7]))
    sampler = HfTree(n=n, temperature=temperature).build(tiny_resources(POLICY))
    r = sampler(c, step=draw(st.integers(0, 3)))
    # As if each had ended somewhere, so that the longest is shorter than G at times.
    count, G = len(c) * n, c.rollout_length
    ends = torch.tensor(draw(st.lists(st.integers(1, G), min_size=count, max_size=count)))
    mask = r.mask & (torch.arange(G) < ends.view(len(c), n, 1))
    zero = torch.zeros_like(r.tokens)
    return replace(
        r, tokens=r.tokens.where(mask, zero), log_probs=r.log_probs.where(mask, zero), mask=mask
    )


def row_log_probs(policy, r: Rollouts, p: int, j: int) -> torch.Tensor:
    """Log-probs of one rollout, from its context and itself as a row of their own."""
    c = r.contexts
    row, anchor = int(c.row[p]), int(c.anchor[p])
    ids = torch.cat([c.tokens[row, :anchor], r.tokens[p, j]])[None]
    logits = policy(ids).logits[0, anchor - 1 : -1] / r.temperature
    return logits.log_softmax(-1).gather(1, r.tokens[p, j][:, None])[:, 0]


def document_log_probs(policy, c: Contexts, b: int) -> torch.Tensor:
    ids = c.tokens[b, : c.lengths[b]]
    return policy(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]


@given(rollouts())
@settings(max_examples=60)
def test_log_probs_of_sampler_tree_and_rows_agree(r):
    with torch.no_grad():
        tree = tree_log_probs(POLICY, r)
        torch.testing.assert_close(r.log_probs, tree.rollouts * r.mask, atol=1e-9, rtol=0)
        for p in range(len(r.contexts)):
            for j in range(r.tokens.shape[1]):
                row, mask = row_log_probs(POLICY, r, p, j), r.mask[p, j]
                torch.testing.assert_close(tree.rollouts[p, j][mask], row[mask], atol=1e-9, rtol=0)
        for b in range(len(r.contexts.documents)):
            alone = document_log_probs(POLICY, r.contexts, b)
            length = int(r.contexts.lengths[b])
            torch.testing.assert_close(tree.documents[b, 1:length], alone, atol=1e-9, rtol=0)


@given(contexts())
@settings(max_examples=15)
def test_greedy_tokens_of_tree_and_rows_agree(c):
    """Greedy, as the limit of a temperature towards 0."""
    r = HfTree(n=1, temperature=1e-7).build(tiny_resources(POLICY))(c, step=0)
    with torch.no_grad():
        for p, (row, anchor) in enumerate(zip(c.row.tolist(), c.anchor.tolist(), strict=True)):
            ids = c.tokens[row, :anchor]
            for token in r.tokens[p, 0][r.mask[p, 0]]:
                top = POLICY(ids[None]).logits[0, -1].topk(2)
                assert token == top.indices[0] or top.values[0] - top.values[1] < 1e-5
                ids = torch.cat([ids, token[None]])


@given(rollouts(), st.sampled_from(["concat", "stack", "mean"]), st.sampled_from(["last", "mean"]))
@settings(max_examples=40)
def test_features_of_tree_and_rows_agree(r, combine, pooling):
    options = HiddenStates(depths=(0.25, 0.5, 1.0), combine=combine, pooling=pooling)
    features = options.build(tiny_resources(POLICY))(r)
    c = r.contexts
    for p in range(len(c)):
        row, anchor = int(c.row[p]), int(c.anchor[p])
        prefix = c.tokens[row, :anchor]
        for j in range(r.tokens.shape[1]):
            expected = row_features(prefix, r.tokens[p, j][r.mask[p, j]], combine, pooling)
            torch.testing.assert_close(features.samples[p, j], expected, atol=1e-9, rtol=0)
        expected = row_features(prefix, c.reference[p][c.reference_mask[p]], combine, pooling)
        torch.testing.assert_close(features.references[p, 0], expected, atol=1e-9, rtol=0)


def row_features(prefix, continuation, combine, pooling):
    """φ of one continuation by transformers' own `output_hidden_states`, written out plainly."""
    with torch.no_grad():
        states = POLICY(torch.cat([prefix, continuation])[None], output_hidden_states=True)
    layers = [states.hidden_states[i][0, len(prefix) :] for i in (1, 2, 4)]
    if combine == "concat":
        tokens = torch.cat(layers, -1)
        tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    elif combine == "stack":
        tokens = torch.cat([h / h.norm(dim=-1, keepdim=True) for h in layers], -1) / 3**0.5
    else:
        tokens = sum(layers) / 3
        tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    return tokens[-1] if pooling == "last" else tokens.mean(0)


@given(rollouts())
@settings(max_examples=15)
def test_gradients_of_tree_and_rows_agree(r):
    P, n, _ = r.tokens.shape
    advantages = torch.randn(P, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradient(loss):
        return torch.autograd.grad(loss, list(POLICY.parameters()))

    tree = tree_log_probs(POLICY, r)
    mask = cross_entropy_mask(r.contexts, "all")
    loss = policy_gradient_loss(tree.rollouts, r.mask, advantages, contexts=P, reduction="sum")
    of_tree = gradient(loss - (tree.documents * mask).sum())

    rows = sum(
        advantages[p, j] * (row_log_probs(POLICY, r, p, j) * r.mask[p, j]).sum()
        for p in range(P)
        for j in range(n)
    )
    documents = sum(
        document_log_probs(POLICY, r.contexts, b).sum() for b in range(len(r.contexts.documents))
    )
    of_rows = gradient(-rows / (P * n) - documents)
    for a, b in zip(of_tree, of_rows, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@given(rollouts())
@settings(max_examples=60)
def test_mask_is_ancestry(r):
    """Each token sees its context and its own trunk or branch so far, nothing else."""
    tree, c = grow(r, steps=r.tokens.shape[-1]), r.contexts
    mask = tree.mask.dense[0, 0]
    for b, length in enumerate(c.lengths.tolist()):
        trunk = tree.trunk_at[b, :length].tolist()
        assert tree.tokens[0, trunk].tolist() == c.documents[b].tokens.tolist()
        for position, column in enumerate(trunk):
            assert mask[column].nonzero()[:, 0].tolist() == trunk[: position + 1]
            assert tree.positions[0, column] == position
    n = r.tokens.shape[1]
    for p, (row, anchor) in enumerate(zip(c.row.tolist(), c.anchor.tolist(), strict=True)):
        for j in range(n):
            for t, column in enumerate(tree.rollout_at[p, j].tolist()):
                branch = tree.rollout_at[p, j, : t + 1].tolist()
                ancestors = [*tree.trunk_at[row, :anchor].tolist(), *branch]
                assert mask[column].nonzero()[:, 0].tolist() == ancestors
                assert tree.positions[0, column] == anchor + t
                assert torch.equal(
                    tree.mask.at(t).dense[0, 0, p * r.tokens.shape[1] + j], mask[column]
                )
    assert mask.shape == (tree.tokens.numel(),) * 2, "nothing is padded"


@given(rollouts(), st.integers(1, 3))
@settings(max_examples=30)
def test_parts_of_documents_give_the_same_as_the_whole(r, documents):
    with torch.no_grad():
        whole = tree_log_probs(POLICY, r)
        for place, contexts in at_a_time(documents, r.contexts).split():
            part = r.of(contexts, place)
            torch.testing.assert_close(
                tree_log_probs(POLICY, part).rollouts.where(part.mask, 0),
                whole.rollouts[place].where(part.mask, 0),
                atol=1e-9, rtol=0,
            )  # fmt: skip


def test_sampled_tokens_have_the_policys_distribution():
    """Chi-square over a tiny vocabulary, of a second token given the first."""
    from scipy.stats import chisquare

    c = Strided(start=5, stride=50, rollout_length=2)(tiny_documents([8]))
    r = HfTree(n=3000, temperature=1.3).build(tiny_resources(POLICY))(c, step=0)
    with torch.no_grad():
        first = torch.bincount(r.tokens[0, :, 0], minlength=VOCAB)
        favourite = int(first.argmax())
        prefix = c.tokens[:, :5]
        for counts, ids in [
            (first, prefix),
            (
                torch.bincount(r.tokens[0][r.tokens[0, :, 0] == favourite][:, 1], minlength=VOCAB),
                torch.cat([prefix, torch.tensor([[favourite]])], 1),
            ),
        ]:
            expected = (POLICY(ids).logits[0, -1] / 1.3).softmax(-1) * counts.sum()
            rare = expected < expected.sort().values[3]  # together, so that no cell is tiny
            observed = torch.cat([counts[~rare].double(), counts[rare].sum()[None].double()])
            wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
            assert wanted.min() > 5
            assert chisquare(observed, wanted).pvalue > 1e-4


def test_rollouts_do_not_depend_on_micro_batch_order_or_other_documents():
    documents = tiny_documents([20, 17, 25, 9])
    plan = Strided(start=3, stride=4, rollout_length=5)
    contexts, sample = plan(documents), HfTree(n=2).build(tiny_resources(POLICY))
    whole = sample(contexts, step=7)
    for micro_batch in (1, 3):
        assert torch.equal(whole.tokens, sample(at_a_time(micro_batch, contexts), step=7).tokens)
    alone = sample(plan([documents[2]]), step=7)
    assert torch.equal(whole.tokens[contexts.row == 2], alone.tokens)
    assert not torch.equal(whole.tokens, sample(contexts, step=8).tokens)


def test_completion_rollouts_end_with_eos():
    c = Completion(rollout_length=12)(tiny_documents([9, 14], prompt_length=4))
    r = HfTree(n=50, temperature=1.5).build(tiny_resources(POLICY, eos=3))(c, step=0)
    ended = 0
    for tokens, mask in zip(r.tokens.flatten(0, 1), r.mask.flatten(0, 1), strict=True):
        kept = tokens[mask].tolist()
        assert 3 not in kept[:-1]
        assert mask[: len(kept)].all(), "the mask is a prefix"
        assert len(kept) == 12 or kept[-1] == 3
        ended += len(kept) < 12
    assert ended > 0


def test_it_decodes_no_further_than_the_longest_rollout(monkeypatch):
    contexts = Completion(rollout_length=12)(tiny_documents([9, 14], prompt_length=4))
    sampler = HfTree(n=2, temperature=1e-7).build(tiny_resources(POLICY, eos=-1))
    never = sampler(contexts, step=0)
    # The token that both documents' likeliest rollouts come to first.
    eos = min(
        set(never.tokens[0, 0].tolist()) & set(never.tokens[1, 0].tolist()),
        key=lambda token: max((row[0] == token).nonzero()[0] for row in never.tokens),
    )
    steps = []
    decode = forward.decode
    monkeypatch.setattr(forward, "decode", lambda *a: steps.append(1) or decode(*a))
    short = HfTree(n=2, temperature=1e-7).build(tiny_resources(POLICY, eos=eos))(contexts, step=0)
    assert len(steps) == short.mask.sum(-1).max() < 12
    assert torch.equal(short.tokens, never.tokens.where(short.mask, 0))
    assert torch.equal(short.log_probs, never.log_probs.where(short.mask, 0))


def test_counted_token_forwards_and_logits(monkeypatch):
    """At most S + nA(G−1) tokens to train, S + nAG for features, and to sample what is before the
    last anchor and nA(G−1): each distinct prefix once, and none that the document has."""
    forwarded, predicted = [], []
    make = log_probs._logits

    def count(hidden, *others):
        predicted.append(len(hidden))
        return make(hidden, *others)

    def counted(work):
        forwarded.clear()
        predicted.clear()
        with torch.no_grad():
            result = work()
        return sum(forwarded), sum(predicted), result

    monkeypatch.setattr(log_probs, "_logits", count)
    hook = POLICY.base_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: forwarded.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        c = Strided(start=8, stride=16, rollout_length=8)(tiny_documents([1024]))
        assert len(c) == 64
        resources = tiny_resources(POLICY)
        tokens, logits, r = counted(lambda: HfTree(n=8).build(resources)(c, step=0))
        fed = r.first(7)
        assert tokens == 1016 + len(prefixes(fed)) < 1016 + 8 * 64 * 7
        assert logits == 64 + len(prefixes(fed)), "first tokens of a context share their logits"
        tokens, logits, _ = counted(lambda: tree_log_probs(POLICY, r))
        assert tokens == 1024 + len(prefixes(fed) - prefixes_of_document(c))
        assert logits == 1023 + len(prefixes(r))
        tokens, logits, _ = counted(lambda: HiddenStates().build(resources)(r))
        assert (tokens, logits) == (1024 + len(prefixes(r) - prefixes_of_document(c)), 0)
        ends = torch.tensor([2, 3, 1, 3, 1, 2, 3, 1]).view(1, 8, 1)
        ended = replace(r, mask=(torch.arange(8) < ends).expand_as(r.tokens))
        tokens, logits, _ = counted(lambda: tree_log_probs(POLICY, ended))
        fed = ended.first(2)  # nothing follows the last token of the longest
        assert tokens == 1024 + len(prefixes(fed) - prefixes_of_document(c)) < 1024 + 8 * 64 * 2
        assert logits == 1023 + len(prefixes(ended))
    finally:
        hook.remove()


def prefixes(r: Rollouts) -> set[tuple[int, tuple[int, ...]]]:
    """What the rollout tokens of a document see, themselves included, with the context's number."""
    return {
        (p, tuple(tokens[: t + 1].tolist()))
        for p in range(len(r.contexts))
        for tokens, mask in zip(r.tokens[p], r.mask[p], strict=True)
        for t in range(int(mask.sum()))
    }


def prefixes_of_document(c: Contexts) -> set[tuple[int, tuple[int, ...]]]:
    """What the tokens of the references see."""
    return {
        (p, tuple(tokens[: t + 1].tolist()))
        for p, (tokens, mask) in enumerate(zip(c.reference, c.reference_mask, strict=True))
        for t in range(int(mask.sum()))
    }
