"""The layers of a decoder, whatever its architecture calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder's list of layers and its name there, whatever the architecture calls it.

    Raises `UserError` if the model has no list of `num_hidden_layers` modules.
    """
    count = model.config.num_hidden_layers
    for name, child in model.base_model.named_children():
        if isinstance(child, nn.ModuleList) and len(child) == count:
            return name, child
    raise UserError(
        f"model.path: {type(model).__name__} has no list of its {count} decoder layers; give "
        "another model"
    )


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The decoder's linear layers by their names: all but the LM head."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
