"""The probe: does the engine compute what the trainer computes?

It goes the way that rollouts go (a context of several cached blocks, sampling, log-probs), so that
it sees weights that did not arrive, a head that was not repacked and prefixes that were not
forgotten alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.models.forward import autocast
from ebft.models.tree_log_probs import tree_log_probs
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LENGTH = 8
"""Tokens of a probe's rollouts."""
BLOCKS = 2
"""Whole blocks of the prefix cache that a context fills, if the model's limit lets it."""


def probe_contexts(*, count: int, vocabulary: int, block_size: int, limit: int | None) -> Contexts:
    """`count` fixed contexts of random tokens; the same for every run of the same model.

    `limit` is the most tokens that a context and its rollout may have; None: as many as they like.
    """
    generator = torch.Generator().manual_seed(0)
    length = BLOCKS * block_size + 1
    if limit is not None:
        length = min(length, limit - LENGTH)

    def tokens() -> Int[Tensor, " S"]:
        return torch.randint(vocabulary, (length + LENGTH,), generator=generator)

    documents = [Document(f"probe/{i}", tokens()) for i in range(count)]
    anchors = [torch.tensor([length])] * count
    return make_contexts(documents, anchors, rollout_length=LENGTH, stop_at_eos=False)


@torch.no_grad()
def largest_gap(policy: PreTrainedModel, rollouts: Rollouts, precision: torch.dtype) -> float:
    """max |log p(sampler) − log p(trainer)| over the tokens of rollouts; infinite if any is NaN."""
    with autocast(rollouts.tokens.device, precision):
        trainers = tree_log_probs(policy, rollouts).rollouts
    gap = (rollouts.log_probs - trainers).abs()[rollouts.mask]
    return float(gap.nan_to_num(nan=torch.inf).max())
