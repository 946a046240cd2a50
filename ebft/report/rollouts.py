"""A table of rollouts beside their references, to see what the policy writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from ebft.models.tokenizer import text_of
from ebft.rollout.records import Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT_TOKENS = 12


def rollouts_table(
    rollouts: Rollouts,
    reward: Float[Tensor, "P n"],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    contexts: int = 3,
) -> Table:
    """A few contexts, evenly spaced over the step: their reference, best and worst rollout."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("context (end)", ratio=3)
    table.add_column("reference", ratio=2)
    table.add_column("highest reward", ratio=2)
    table.add_column("lowest reward", ratio=2)
    c = rollouts.contexts

    def cell(tokens: torch.Tensor, note: str = "") -> str:
        return f"{note}{text_of(tokens.tolist(), tokenizer)!r}"

    def rollout(p: int, j: int) -> str:
        tokens = rollouts.tokens[p, j][rollouts.mask[p, j]]
        return cell(tokens, f"{float(reward[p, j]):+.2f} ")

    for p in torch.linspace(0, len(c) - 1, min(contexts, len(c))).long().tolist():
        row, anchor = int(c.row[p]), int(c.anchor[p])
        table.add_row(
            cell(c.tokens[row, max(anchor - CONTEXT_TOKENS, 0) : anchor]),
            cell(c.reference[p][c.reference_mask[p]]),
            rollout(p, int(reward[p].argmax())),
            rollout(p, int(reward[p].argmin())),
        )
    return table
