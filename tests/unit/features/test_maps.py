"""Feature maps beside `hidden_states`, each against its definition written out plainly."""

import pytest
import torch

from ebft.features import next_token_log_probs
from ebft.features.bag_of_tokens import BagOfTokens
from ebft.features.concat import Concat
from ebft.features.hidden_states import HiddenStates
from ebft.features.next_token_log_probs import NextTokenLogProbs
from ebft.features.presets import LayerConcat, MeanPool
from ebft.parts.registry import default_registry
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.contexts import make_rollouts
from ebft.rollout.records import Document
from ebft.samplers.hf_tree import HfTree
from ebft.transforms.project import projection
from tests.tiny import VOCAB, tiny_documents, tiny_policy, tiny_resources

POLICY = tiny_policy()
RESOURCES = tiny_resources(POLICY)
CONTEXTS = {
    "strided": Strided(start=3, stride=4, rollout_length=5)(tiny_documents([19, 12, 16])),
    "completion": Completion(rollout_length=6)(tiny_documents([8, 14, 6], prompt_length=4)),
}


@pytest.fixture(params=CONTEXTS)
def rollouts(request):
    return HfTree(n=3).build(RESOURCES)(CONTEXTS[request.param], step=0)


def continuations(rollouts):
    """(where φ goes, the context's tokens, the tokens) of every rollout and reference."""
    c = rollouts.contexts
    for p in range(len(c)):
        prefix = c.tokens[c.row[p], : c.anchor[p]]
        for j in range(rollouts.tokens.shape[1]):
            yield "samples", (p, j), prefix, rollouts.tokens[p, j][rollouts.mask[p, j]]
        yield "references", (p, 0), prefix, c.reference[p][c.reference_mask[p]]


@pytest.mark.parametrize(("preset", "pooling"), [(LayerConcat, "last"), (MeanPool, "mean")])
def test_presets_are_hidden_states_with_the_paper_s_options(rollouts, preset, pooling):
    plain = HiddenStates(depths=(0.25, 0.5, 0.75), combine="concat", pooling=pooling)
    expected, features = plain.build(RESOURCES)(rollouts), preset().build(RESOURCES)(rollouts)
    assert torch.equal(features.samples, expected.samples)
    assert torch.equal(features.references, expected.references)
    assert features.layers == expected.layers == 3
    assert preset().base_depth() == plain.base_depth() == 0.75


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_without_the_end_token_features_are_those_of_the_tokens_before_it(pooling):
    c, eos = CONTEXTS["completion"], RESOURCES.tokenizer.eos_token_id
    tokens = torch.randint(VOCAB, (3, 4, 6), generator=torch.Generator().manual_seed(0))
    tokens = tokens.where(tokens != eos, eos + 1)
    for j, end in enumerate([0, 1, 4]):  # the fourth has not ended
        tokens[:, j, end] = eos
    made = make_rollouts(
        c, tokens, torch.zeros(tokens.shape), tokenizer=RESOURCES.tokenizer, temperature=1.0
    )
    how = {"depths": (0.5, 1.0), "pooling": pooling}
    features = HiddenStates(**how, end_token=False).build(RESOURCES)(made)
    part = HiddenStates(**how).build(RESOURCES)
    for which, (p, j), prefix, text in continuations(made):
        kept = text[:-1] if text[-1] == eos and len(text) > 1 else text
        document = Document("alone", torch.cat([prefix, kept]), prompt_length=len(prefix))
        alone = Completion(rollout_length=len(kept))([document])
        expected = part(HfTree(n=1).build(RESOURCES)(alone, step=0)).references[0, 0]
        torch.testing.assert_close(getattr(features, which)[p, j], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dimensions", [None, 7])
@pytest.mark.parametrize("pooling", ["last", "mean", "all"])
@pytest.mark.parametrize("rows", [1, 512])
def test_logits(rollouts, dimensions, pooling, rows, monkeypatch):
    monkeypatch.setattr(next_token_log_probs, "ROWS", rows)
    part = NextTokenLogProbs(dimensions=dimensions, pooling=pooling, seed=3)
    features = part.build(RESOURCES)(rollouts)
    for which, (p, j), prefix, tokens in continuations(rollouts):
        with torch.no_grad():
            all_logits = POLICY(torch.cat([prefix, tokens])[None]).logits[0, len(prefix) :]
        each = all_logits.log_softmax(-1)
        if dimensions is not None:
            each = each @ projection(VOCAB, dimensions, 3).float().double()
        each = each / each.norm(dim=-1, keepdim=True)
        missing = torch.zeros(rollouts.tokens.shape[2] - len(each), each.shape[1])
        expected = {
            "last": each[-1], "mean": each.mean(0), "all": torch.cat([each, missing]).flatten(),
        }[pooling]  # fmt: skip
        torch.testing.assert_close(getattr(features, which)[p, j], expected, atol=1e-9, rtol=0)


def test_logits_that_are_not_normalised(rollouts):
    part = NextTokenLogProbs(dimensions=None, normalize=False)
    samples = part.build(RESOURCES)(rollouts).samples
    torch.testing.assert_close(samples.exp().sum(-1), torch.ones_like(samples[..., 0]))


@pytest.mark.parametrize("dimensions", [None, 5])
@pytest.mark.parametrize("scale", ["count", "share", "unit"])
def test_bag_of_tokens(rollouts, dimensions, scale):
    features = BagOfTokens(dimensions=dimensions, scale=scale).build(RESOURCES)(rollouts)
    D = dimensions or VOCAB
    for which, (p, j), _, tokens in continuations(rollouts):
        counts = torch.bincount(tokens % D, minlength=D).float()
        expected = {
            "count": counts, "share": counts / len(tokens), "unit": counts / counts.norm()
        }[scale]  # fmt: skip
        torch.testing.assert_close(getattr(features, which)[p, j], expected)


def test_weights_of_concat_are_those_of_inner_products(rollouts):
    bag, layers = BagOfTokens(), HiddenStates()
    whole = Concat(
        maps=({"weight": 0.3, "feature_map": bag}, {"weight": 2.0, "feature_map": layers})
    )
    features = whole.build(RESOURCES)(rollouts)

    def products(features):
        return features.samples.double() @ features.references.double().mT

    a, b = (part.build(RESOURCES)(rollouts) for part in (bag, layers))
    torch.testing.assert_close(products(features), 0.3 * products(a) + 2 * products(b))
    assert features.layers == 1
    alone = Concat(maps=({"feature_map": layers},)).build(RESOURCES)(rollouts)
    assert alone.layers == 3
    assert torch.equal(alone.samples, b.samples)


def test_concat_has_stacked_layers_if_they_are_all_it_has(rollouts):
    stacked = {"feature_map": HiddenStates(combine="stack")}
    alone, beside, first = (
        Concat(maps=maps).build(RESOURCES)(rollouts)
        for maps in ([stacked], [stacked, {"feature_map": BagOfTokens()}], [stacked, stacked])
    )
    assert (alone.layers, alone.stacked) == (3, True)
    assert (beside.layers, beside.stacked) == (1, False)
    assert (first.layers, first.stacked) == (1, False)


def test_concat_claims_what_its_maps_claim(rollouts):
    section = {
        "_component_": "concat",
        "maps": [
            {"feature_map": {"_component_": "bag_of_tokens"}},
            {"feature_map": {"_component_": "hidden_states"}},
        ],
    }
    part = default_registry().parse("feature_maps", section)
    assert part.claim().unbiased
    with pytest.raises(ValueError, match="greater than 0"):
        Concat(maps=({"weight": 0, "feature_map": BagOfTokens()},))
