"""A digest of weights, by which a run knows whether a model is the one that it had before."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from ebft.models.quantize import dense

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 1024
"""Values of each weight that are looked at: enough to tell models apart, in milliseconds."""


def digest_weights(model: PreTrainedModel) -> str:
    """A digest of the names and shapes of all weights, and of evenly spaced values of each."""
    digest = blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        flat = dense(weight.detach()).flatten()
        values = flat[:: max(1, flat.numel() // SAMPLED)].float().cpu()
        digest.update(f"{name}\0{tuple(weight.shape)}\0".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
