"""`torch.compile` of a decoder's layers, for training: less time and less memory for backward."""

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
"""The C++ compilers that torch looks for."""


def compile_layers(model: PreTrainedModel) -> None:
    """Makes every decoder layer compile when it first runs, in place; weights do not change.

    All layers share their compiled code. Sizes are dynamic, so other tree lengths do not recompile
    it. Attention over trees is not compiled (`models.attention`), so a layer has one graph before
    it and one after. Raises `ValueError` for a model without a list of layers, and `UserError` if
    there is no C++ compiler.
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
    """Context manager in which compiled layers of the model run eagerly.

    It is used for sampling, where compiling takes longer than it saves. If no layer is compiled,
    it does nothing, because torch's switch is global and would turn off FlexAttention's kernels.
    """
    if not any(module._compiled_call_impl is not None for module in model.modules()):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
