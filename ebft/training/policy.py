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
from ebft.rollout.sees import sees_trunk
from ebft.rollout.tree import grow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TreeLogProbs(NamedTuple):
    """log p of each rollout token at the sampling temperature, of each document token at 1.

    A document's first token has no prediction; its entry is 0.
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
    tree, contexts = grow(rollouts), rollouts.contexts
    hidden = decode(policy, tree.tokens, tree.positions, tree.sees)
    at = hidden[contexts.row[:, None, None], tree.logit_index]  # [P, n, G, d]
    sampled = token_log_probs(
        policy, at.flatten(0, 2), rollouts.tokens.flatten(), rollouts.temperature
    )
    with torch.set_grad_enabled(torch.is_grad_enabled() and train_documents):
        documents = _of_trunk(policy, contexts, hidden)
    return sampled, documents


def _document_log_probs(policy: PreTrainedModel, contexts: Contexts) -> Float[Tensor, "B S"]:
    B, S = contexts.tokens.shape
    device = contexts.tokens.device
    positions = torch.arange(S, device=device).expand(B, S)
    hidden = decode(policy, contexts.tokens, positions, sees_trunk(B, S, device))
    return _of_trunk(policy, contexts, hidden)


def _of_trunk(
    policy: PreTrainedModel, contexts: Contexts, hidden: Float[Tensor, "B T d"]
) -> Float[Tensor, "B S"]:
    S = contexts.tokens.shape[1]
    trunk = hidden[:, : S - 1]
    log_probs = token_log_probs(policy, trunk.flatten(0, 1), contexts.tokens[:, 1:].flatten())
    return torch.nn.functional.pad(log_probs.view(-1, S - 1), (1, 0))
