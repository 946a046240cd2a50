"""The probe: does the engine compute the same log-probs as the trainer?

It uses the same code path as rollouts (a context of several cached blocks, sampling, log-probs), so
that it detects weights that were not copied, a head that was not repacked, and a prefix cache that
was not reset.
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
"""Whole blocks of the prefix cache that a context fills, if the model's limit allows it."""


def probe_contexts(*, count: int, vocabulary: int, block_size: int, limit: int | None) -> Contexts:
    """Returns `count` fixed contexts of random tokens, the same for every run of the same model.

    `limit` is the most tokens that a context and its rollout may have together; None: no limit.
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
    """Returns max |log p(sampler) − log p(trainer)| over rollout tokens; infinite if any is NaN."""
    with autocast(rollouts.tokens.device, precision):
        trainers = tree_log_probs(policy, rollouts).rollouts
    gap = (rollouts.log_probs - trainers).abs()[rollouts.mask]
    return float(gap.nan_to_num(nan=torch.inf).max())
