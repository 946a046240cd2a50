"""The equality probe: before a run, on the real model, a tree must equal independent rows.

Nothing else would show that an architecture reads masks, positions or windows in a way of its own,
or attends to the previous document of a row: the losses would be finite, but wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.errors import NumericalError
from ebft.models.tree_log_probs import tree_log_probs
from ebft.parts.interfaces import Plan
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DOCUMENTS = 64
CONTEXTS = 3
"""Contexts of the two longest documents that are probed: the first, the middle, the last."""
TOLERANCE = 2e-3
"""Nats. float32 rounding makes about 1e-5; a mask or position that is off by one makes 0.1."""


@torch.no_grad()
def probe_tree(policy: PreTrainedModel, documents: Sequence[Document], plan: Plan) -> float:
    """Returns the largest |log p(tree) − log p(rows)| of any token, in nats, without autocast.

    It probes the two longest of the first `DOCUMENTS` documents, because later ones may not be
    tokenised yet. Raises `NumericalError` if the gap is more than `TOLERANCE` or not finite: such a
    model cannot be trained or measured.
    """
    first = [documents[place] for place in range(min(DOCUMENTS, len(documents)))]
    longest = sorted(first, key=lambda document: document.tokens.numel())[-2:]
    contexts = _few(plan(longest)).to(policy.device)
    # Any tokens can serve as rollouts: here the reference, and the reference reversed.
    tokens = torch.stack([contexts.reference, contexts.reference.flip(-1)], 1)
    nothing = torch.zeros(tokens.shape, device=tokens.device)
    everything = torch.ones_like(tokens, dtype=torch.bool)
    tree = tree_log_probs(policy, Rollouts(contexts, tokens, nothing, everything, 1.0))
    rows = [
        _alone(policy, contexts.tokens[row, :anchor], branch)
        for row, anchor, branches in zip(
            contexts.row.tolist(), contexts.anchor.tolist(), tokens, strict=True
        )
        for branch in branches
    ]
    gaps = [(tree.rollouts.flatten(0, 1) - torch.stack(rows)).flatten()]
    for i, length in enumerate(contexts.lengths.tolist()):
        own = _alone(policy, contexts.tokens[i, :1], contexts.tokens[i, 1:length])
        gaps.append(tree.documents[i, 1:length] - own)
    gap = float(torch.cat(gaps).abs().max())
    name = " and ".join(document.name for document in contexts.documents)
    if not math.isfinite(gap):
        raise NumericalError(
            f"before anything is computed: log-probs of {name} are not finite; look for NaN or "
            f"infinity in the weights of {type(policy).__name__}"
        )
    if gap > TOLERANCE:
        raise NumericalError(
            f"{type(policy).__name__} does not compute over a tree what it computes over rows: "
            f"log-probs of {name} differ by {gap:.2g} nats, more than "
            f"{TOLERANCE:g}; it cannot be trained or measured, give another model"
        )
    return gap


def _few(contexts: Contexts) -> Contexts:
    every = len(contexts) - 1
    chosen = sorted({every * i // (CONTEXTS - 1) for i in range(CONTEXTS)})
    row, anchor = contexts.row[chosen], contexts.anchor[chosen]
    return make_contexts(
        contexts.documents,
        [anchor[row == i] for i in range(len(contexts.documents))],
        rollout_length=contexts.rollout_length,
        stop_at_eos=contexts.stop_at_eos,
    )


def _alone(policy: PreTrainedModel, prefix: Tensor, continuation: Tensor) -> Float[Tensor, " G"]:
    """log p of a continuation, from the model's own forward over one plain row."""
    ids = torch.cat([prefix, continuation])[None]
    logits = policy(input_ids=ids, logits_to_keep=len(continuation) + 1).logits[0, :-1]
    log_probs: Tensor = logits.log_softmax(-1).gather(1, continuation[:, None])[:, 0]
    return log_probs
