"""Writes a policy as a folder that `from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_policy(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights as safetensors, configuration and tokenizer, into an existing folder."""
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
