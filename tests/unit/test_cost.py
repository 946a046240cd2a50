"""The cost model's counts are those of the trees that are really grown."""

import pytest
import torch

from ebft.cost import DocumentTree, ModelShape, flops
from ebft.rollout.records import Rollouts
from ebft.rollout.sees import sees_trunk
from ebft.rollout.strided import Strided
from ebft.rollout.tree import grow
from tests.tiny import CONFIG, plain_policy, tiny_documents


def rollouts_of(contexts, n):
    tokens = torch.zeros(len(contexts), n, contexts.rollout_length, dtype=torch.long)
    return Rollouts(contexts, tokens, torch.zeros(tokens.shape), tokens == 0, 1.0)


@pytest.mark.parametrize(("start", "stride", "G", "n"), [(4, 4, 3, 2), (1, 1, 1, 1), (5, 7, 8, 4)])
def test_tokens_and_attended_pairs(start, stride, G, n):
    contexts = Strided(start=start, stride=stride, rollout_length=G)(tiny_documents([40]))
    grown = grow(rollouts_of(contexts, n))
    tree = DocumentTree(40, contexts.anchor.tolist(), n, G)
    assert tree.tokens == grown.tokens.numel()
    assert tree.pairs(G) == int(grown.sees.mask().sum())


def test_the_budget_of_the_paper_s_documents():
    """1,024 tokens, start 8, stride 8, G 8, n 4: the figures the design was made from."""
    contexts = Strided(start=8, stride=8, rollout_length=8)(tiny_documents([1024]))
    tree = DocumentTree(1024, contexts.anchor.tolist(), n=4, rollout_length=8)
    assert len(tree.anchors) == 127
    assert tree.tokens == 5088
    assert tree.sampling_tokens == 4580


def test_parameters_are_the_model_s():
    policy, shape = plain_policy(), ModelShape.of(CONFIG)
    norms = sum(p.numel() for name, p in policy.named_parameters() if "norm" in name)
    assert shape.parameters == sum(p.numel() for p in policy.parameters()) - norms


def test_flops_of_a_forward_are_torch_s_own_count():
    from torch.utils.flop_counter import FlopCounterMode

    from ebft.models.forward import decode

    policy, shape = plain_policy(), ModelShape.of(CONFIG)
    policy.set_attn_implementation("ebft_dense")
    S = 24
    tree = DocumentTree(S, [], 1, 1)
    sees = sees_trunk(1, S, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decode(policy, torch.zeros(1, S, dtype=torch.long), torch.arange(S)[None], sees)
    # torch does not count the attention kernel of CPUs.
    attention = 4 * shape.heads * shape.head_dim * tree.pairs(0) * shape.layers
    assert counter.get_total_flops() == flops(shape, tree).features - attention
