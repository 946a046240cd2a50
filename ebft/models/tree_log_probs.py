"""One forward of the policy over the tree: log-probs of the rollouts and of the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ebft.models.forward import decode
from ebft.models.log_probs import token_log_probs, token_log_probs_and_entropies
from ebft.models.whole import whole
from ebft.rollout.merge import distinct, grow_merged
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree import Tree, plant

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TreeLogProbs(NamedTuple):
    """log p of each rollout token at the sampling temperature, and of each document token at 1.

    The entries of a document's first token and of padding are 0. Entries after the end of the
    longest rollout are 0; those after the end of a shorter rollout are undefined.
    """

    rollouts: Float[Tensor, "P n G"]
    documents: Float[Tensor, "B S"]


class DocumentLogProbs(NamedTuple):
    """log p of each document token, as in `TreeLogProbs`, and the entropy of the distribution that
    predicts it, without a gradient; 0 where log p is."""

    log_probs: Float[Tensor, "B S"]
    entropies: Float[Tensor, "B S"]


def tree_log_probs(
    policy: PreTrainedModel, rollouts: Rollouts, *, train_documents: bool = True
) -> TreeLogProbs:
    """Returns the log-probs of a whole tree from one forward, differentiable.

    Without `train_documents`, those of documents are detached, which skips their backward through
    the LM head.
    """
    sampled, documents = tree_log_probs_and_entropies(
        policy, rollouts, train_documents=train_documents, likeliest=0
    )
    return TreeLogProbs(sampled, documents.log_probs)


def tree_log_probs_and_entropies(
    policy: PreTrainedModel,
    rollouts: Rollouts,
    *,
    train_documents: bool,
    likeliest: int,
    keep_logits: bool = False,
) -> tuple[Float[Tensor, "P n G"], DocumentLogProbs]:
    """Returns `tree_log_probs`, with the documents' entropies over the so many `likeliest` tokens
    of each distribution, from the same forward. For 0 the entropies are 0. `keep_logits`: for
    backward, which otherwise computes them again."""
    return whole(policy, _log_probs, policy, rollouts, train_documents, likeliest, keep_logits)


def document_log_probs(policy: PreTrainedModel, contexts: Contexts) -> Float[Tensor, "B S"]:
    """Returns `TreeLogProbs.documents` without rollouts; differentiable."""
    return document_log_probs_and_entropies(policy, contexts, likeliest=0).log_probs


def document_log_probs_and_entropies(
    policy: PreTrainedModel, contexts: Contexts, *, likeliest: int, keep_logits: bool = False
) -> DocumentLogProbs:
    """Returns what `tree_log_probs_and_entropies` does of documents, without rollouts."""
    return whole(policy, _document_log_probs, policy, contexts, likeliest, keep_logits)


def _log_probs(
    policy: PreTrainedModel,
    rollouts: Rollouts,
    train_documents: bool,
    likeliest: int,
    keep_logits: bool,
) -> tuple[Float[Tensor, "P n G"], DocumentLogProbs]:
    # The last token of the longest rollout predicts nothing, so it is left out.
    longest = rollouts.longest
    tree = grow_merged(rollouts, steps=longest - 1)
    hidden = decode(policy, tree.tokens, tree.positions, tree.mask)[0]
    tokens = rollouts.tokens[..., :longest]
    # Tokens with the same prefix have the same log-prob.
    once = distinct(tokens, rollouts.within[..., :longest])
    at = once.kept.flatten().nonzero()[:, 0]
    sampled = token_log_probs(
        policy,
        hidden[tree.logit_index.flatten()[at]],
        tokens.flatten()[at],
        rollouts.temperature,
        keep_logits=keep_logits,
    )
    sampled = pad(once.spread(sampled), (0, rollouts.tokens.shape[-1] - longest))
    with torch.set_grad_enabled(torch.is_grad_enabled() and train_documents):
        documents = _of_trunks(policy, rollouts.contexts, tree, hidden, likeliest, keep_logits)
    return sampled, documents


def _document_log_probs(
    policy: PreTrainedModel, contexts: Contexts, likeliest: int, keep_logits: bool
) -> DocumentLogProbs:
    tree = plant(contexts, n=0, steps=0)
    hidden = decode(policy, tree.tokens, tree.positions, tree.mask)[0]
    return _of_trunks(policy, contexts, tree, hidden, likeliest, keep_logits)


def _of_trunks(
    policy: PreTrainedModel,
    contexts: Contexts,
    tree: Tree,
    hidden: Float[Tensor, "T d"],
    likeliest: int,
    keep_logits: bool,
) -> DocumentLogProbs:
    column = torch.arange(contexts.tokens.shape[1], device=hidden.device)
    predicted = (column > 0) & (column < contexts.lengths[:, None])
    # Their number is known, so the host need not wait for it, as it would to index by a mask.
    count = sum(max(0, length - 1) for length in tree.mask.trunks)
    at = predicted.flatten().nonzero_static(size=count)[:, 0]
    before = tree.trunk_at.flatten()[at - 1]
    log_probs, entropies = token_log_probs_and_entropies(
        policy, hidden[before], contexts.tokens.flatten()[at],
        likeliest=likeliest, keep_logits=keep_logits,
    )  # fmt: skip
    zeros = log_probs.new_zeros(predicted.numel())

    def placed(values: Float[Tensor, " N"]) -> Float[Tensor, "B S"]:
        return zeros.scatter(0, at, values).view(predicted.shape)

    if likeliest == 0:
        return DocumentLogProbs(placed(log_probs), zeros.view(predicted.shape))
    return DocumentLogProbs(placed(log_probs), placed(entropies))
