"""Loads a teacher: another frozen model, whose rollouts or log-probs a part uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ebft.errors import UserError
from ebft.models.layout import Depth, Sample, load_exact
from ebft.models.load import load_frozen, load_tokenizer
from ebft.models.options import ModelOptions
from ebft.models.tokenizer import check_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEACHER = "teacher"
"""The option of a part that names one."""


def load_teacher(
    path: str,
    policy: ModelOptions,
    tokenizer: PreTrainedTokenizerBase,
    *,
    depth: Depth,
    sample: Sample,
) -> PreTrainedModel:
    """Loads the teacher on the policy's device, in float32, on the layout that is exact for it.

    `path` is a folder or a hub id; no code that comes with it is run. Raises `UserError`, naming
    the option `teacher`, if there is no such model, if its tokens are not those of `tokenizer`, and
    as `load_exact` does.
    """
    options = ModelOptions(path=path, device=policy.device)
    says = f"{TEACHER} = {path}"
    own = load_tokenizer(options, key=TEACHER)
    if own.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{says}: its tokens are not those of the policy; give a model that has the same "
            "tokenizer"
        )

    def load(attention: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        chosen = options.model_copy(update={"attention": attention})
        model = load_frozen(chosen, torch.float32, key=TEACHER)
        check_vocabulary(model, own, says=says)
        return model, own

    return load_exact(load, "auto", depth=depth, sample=sample, key=TEACHER).policy
