"""Writes a policy as a folder that `from_pretrained` loads, and takes its weights back from one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_policy(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights as safetensors, configuration and tokenizer, into an existing folder."""
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_weights(policy: PreTrainedModel, folder: Path) -> None:
    """Gives the policy the weights that `save_policy` wrote, to the last bit.

    Raises `ValueError` if they are another architecture's.
    """
    try:
        # transformers may name weights otherwise on disk than in the model; it maps them back.
        saved = type(policy).from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        policy.load_state_dict(saved.state_dict())
    except Exception as error:  # what transformers raises for damaged files is no fixed set
        raise ValueError(f"the weights in {folder} do not fit the model: {error}") from error
