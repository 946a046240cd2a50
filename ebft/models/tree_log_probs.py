"""One forward of the policy over the tree: log-probs of the rollouts and of the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.models.forward import decode
from ebft.models.log_probs import token_log_probs
from ebft.models.whole import whole
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree import Tree, grow, plant

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TreeLogProbs(NamedTuple):
    """log p of each rollout token at the sampling temperature, of each document token at 1.

    Of a document's first token, and after its end, there is none: the entry is 0.
    """

    rollouts: Float[Tensor, "P n G"]
    documents: Float[Tensor, "B S"]


def tree_log_probs(
    policy: PreTrainedModel, rollouts: Rollouts, *, train_documents: bool = True
) -> TreeLogProbs:
    """Log-probs of a whole tree from one forward, differentiable.

    Those of the documents are not if they are not trained, which spares the LM head's backward.
    """
    sampled, documents = whole(policy, _flat_log_probs, policy, rollouts, train_documents)
    return TreeLogProbs(sampled.view_as(rollouts.tokens), documents)


def document_log_probs(policy: PreTrainedModel, contexts: Contexts) -> Float[Tensor, "B S"]:
    """`TreeLogProbs.documents` of the trunks alone, without rollouts; differentiable."""
    return whole(policy, _document_log_probs, policy, contexts)


def _flat_log_probs(
    policy: PreTrainedModel, rollouts: Rollouts, train_documents: bool
) -> tuple[Float[Tensor, " PnG"], Float[Tensor, "B S"]]:
    tree = grow(rollouts)
    hidden = decode(policy, tree.tokens, tree.positions, tree.mask)[0]
    sampled = token_log_probs(
        policy,
        hidden[tree.logit_index.flatten()],
        rollouts.tokens.flatten(),
        rollouts.temperature,
    )
    with torch.set_grad_enabled(torch.is_grad_enabled() and train_documents):
        documents = _of_trunks(policy, rollouts.contexts, tree, hidden)
    return sampled, documents


def _document_log_probs(policy: PreTrainedModel, contexts: Contexts) -> Float[Tensor, "B S"]:
    tree = plant(contexts, n=0, steps=0)
    hidden = decode(policy, tree.tokens, tree.positions, tree.mask)[0]
    return _of_trunks(policy, contexts, tree, hidden)


def _of_trunks(
    policy: PreTrainedModel, contexts: Contexts, tree: Tree, hidden: Float[Tensor, "T d"]
) -> Float[Tensor, "B S"]:
    column = torch.arange(contexts.tokens.shape[1], device=hidden.device)
    predicted = (column > 0) & (column < contexts.lengths[:, None])
    before = tree.trunk_at[predicted.roll(-1, 1)]  # the token in front of each
    values = token_log_probs(policy, hidden[before], contexts.tokens[predicted])
    return values.new_zeros(predicted.shape).masked_scatter(predicted, values)
