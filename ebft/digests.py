"""Digests of documents and of weights, by which runs know whether theirs are the same."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

from ebft.data.on_demand import OnDemand
from ebft.models.quantize import dense
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 1024
"""Values of each weight that are looked at: enough to tell models apart, in milliseconds."""


def digest_documents(documents: Sequence[Document]) -> str:
    """A digest of every name, token and check, in order, behind the number of documents.

    For documents that are tokenised on demand it is one of their texts: there are no tokens yet.
    """
    if isinstance(documents, OnDemand):
        return f"{len(documents)} documents on demand, {documents.digest}"
    digest = blake2b(digest_size=16)
    for document in documents:
        head = f"{document.name}\0{document.prompt_length}\0{document.check}\0"
        digest.update(head.encode("utf-8", "surrogatepass"))  # a file's name may be no UTF-8
        digest.update(document.tokens.to(torch.int64).numpy().tobytes())
    return f"{len(documents)} documents, {digest.hexdigest()}"


def digest_weights(model: PreTrainedModel) -> str:
    """A digest of the names and shapes of all weights, and of evenly spaced values of each."""
    digest = blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        flat = dense(weight.detach()).flatten()
        values = flat[:: max(1, flat.numel() // SAMPLED)].float().cpu()
        digest.update(f"{name}\0{tuple(weight.shape)}\0".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
