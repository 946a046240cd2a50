"""`torch.compile` of a decoder's layers, for training: less time, and less kept for backward."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from shutil import which
from typing import TYPE_CHECKING

import torch

from ebft.errors import UserError
from ebft.models.blocks import decoder_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPILERS = (os.environ.get("CXX", "g++"), "clang++")
"""Where torch looks for one."""


def compile_layers(model: PreTrainedModel) -> None:
    """Has every decoder layer compiled when it first runs, in place; its weights stay as they are.

    All layers share their compiled code, and sizes are symbols in it: trees of other lengths do
    not compile anew. Attention over trees is left out (`models.attention`), so a layer becomes one
    graph before it and one after. Raises `ValueError` for a model without a list of layers, and
    `UserError` if torch would find no compiler.
    """
    if model.device.type == "cpu" and not any(map(which, COMPILERS)):
        raise UserError(
            "training.compile = true: on a CPU it needs a C++ compiler, and there is none; "
            "install g++ or clang++, or set training.compile=false"
        )
    _, blocks = decoder_blocks(model)
    for block in blocks:
        block.compile(dynamic=True)


def eager(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within it, compiled layers of the model run as they were written.

    For sampling: a graph for each step's cache would take longer to compile than it saves. Where no
    layer is compiled nothing changes, for torch's switch is one for all that is compiled anywhere,
    FlexAttention's kernels too.
    """
    if not any(module._compiled_call_impl is not None for module in model.modules()):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
