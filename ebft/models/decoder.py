"""Where the parts of a model are: its text decoder and its layers, its head, its configuration.

A checkpoint may be more than a language model: one with a vision tower, say, of which only the text
part reads text. Everything else in ebft asks here, and nothing else knows how models are nested.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


_cut: WeakSet[nn.Module] = WeakSet()
"""Decoders that `first_layers` made: they have fewer layers than their configuration says."""


def text_config(model: PreTrainedModel) -> PretrainedConfig:
    """Returns the configuration of the text decoder, which may be a part of the model's."""
    return cast("PretrainedConfig", model.config.get_text_config(decoder=True))


def decoder(model: PreTrainedModel) -> PreTrainedModel:
    """Returns the text decoder: what turns token ids into last hidden states.

    It is the smallest model inside `model` that has both the token embedding and the layers. A
    decoder is its own decoder. Raises `UserError` if there is none.
    """
    return model if model in _cut else _find(model)[0]


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Returns the decoder's list of layers, and its name inside the decoder, which differs between
    architectures: `layers`, `h`, `encoder.layer`, …

    Raises `UserError` if it cannot be found.
    """
    _, name, blocks = _layers(model)
    return name, blocks


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Returns the decoder cut after `count` layers: a new module around the same weights."""
    whole, name, blocks = _layers(model)
    decoder = _with_child(whole, name.split("."), blocks[:count])
    _cut.add(decoder)
    return cast("PreTrainedModel", decoder)


def before_head(model: PreTrainedModel) -> list[nn.Module]:
    """Returns what a model applies to the last hidden states, in this order, before the linear
    layer of its LM head; in most architectures nothing.

    Encoders that can be decoders (BERT) have a dense layer and a norm there.
    """
    linear, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    found: list[nn.Module] = []
    for child in _smallest_with(model, linear, embedding).children():
        inside = {module: name for name, module in child.named_modules()}
        if child is linear:
            return found
        if linear in inside:
            return [*found, _with_child(child, inside[linear].split("."), nn.Identity())]
        if embedding not in inside:
            found.append(child)
    raise AssertionError(f"{type(model).__name__} does not contain its LM head")


def _smallest_with(module: nn.Module, *wanted: nn.Module) -> nn.Module:
    for child in module.children():
        if set(wanted) <= set(child.modules()):
            return _smallest_with(child, *wanted)
    return module


def _find(model: PreTrainedModel) -> tuple[PreTrainedModel, dict[str, nn.ModuleList]]:
    """The decoder, and its lists of modules that may be its layers."""
    count = getattr(text_config(model), "num_hidden_layers", None)
    embedding = model.get_input_embeddings()
    found = None
    for module in _models(model):  # those inside others come later
        if any(child is embedding for child in module.modules()):
            lists = _lists(module, count)
            found = (module, lists) if lists else found
    if found is None:
        raise UserError(
            f"model.path: {type(model).__name__} has no list of decoder layers; give another model"
        )
    return found


def _layers(model: PreTrainedModel) -> tuple[PreTrainedModel, str, nn.ModuleList]:
    module, lists = _find(model)
    # Towers inside the decoder have their layers deeper.
    depth = min(name.count(".") for name in lists)
    chosen = {name: blocks for name, blocks in lists.items() if name.count(".") == depth}
    if len(chosen) > 1:
        raise UserError(
            f"model.path: {type(model).__name__} has several lists of modules "
            f"({', '.join(chosen)}), and which are its layers is not known; give another model, or "
            "a feature_map that reads no hidden states"
        )
    ((name, blocks),) = chosen.items()
    return module, name, blocks


def _lists(module: nn.Module, count: int | None) -> dict[str, nn.ModuleList]:
    """The lists that may be the layers: of `count` modules, and preferably of what transformers
    marks as layers. Some architectures count otherwise; then only the mark decides."""
    lists = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) > 0
    }
    marked = {
        name: blocks
        for name, blocks in lists.items()
        if all(isinstance(block, GradientCheckpointingLayer) for block in blocks)
    }
    counted = {name: blocks for name, blocks in lists.items() if len(blocks) == count}
    both = {name: blocks for name, blocks in counted.items() if name in marked}
    return both or counted or marked


def _models(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    from transformers import PreTrainedModel

    return (module for module in model.modules() if isinstance(module, PreTrainedModel))


def _with_child(module: nn.Module, path: list[str], child: nn.Module) -> nn.Module:
    """Returns a copy of a module with the child at `path` replaced, which shares everything else.

    The copy has its own dict of children, because the original must keep all its layers.
    """
    name, *rest = path
    inside: Any = module._modules[name]
    changed = copy.copy(module)
    changed._modules = {
        **module._modules, name: _with_child(inside, rest, child) if rest else child,
    }  # fmt: skip
    return changed
