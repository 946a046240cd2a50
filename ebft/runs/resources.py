"""What a run's parts are built from: the policy, its tokenizer and the frozen base model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from ebft.models.load import load_frozen, load_policy, resolve_device
from ebft.models.lora import add_adapter, has_adapter, without_adapter
from ebft.parts import Resources
from ebft.processes import ONE_PROCESS, Processes
from ebft.runs.free_memory import free_memory
from ebft.runs.model_recipe_options import ModelRecipeOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_resources(
    options: ModelRecipeOptions,
    processes: Processes = ONE_PROCESS,
    *,
    merge_adapter: bool = True,
) -> Resources:
    """Loads the policy, and gives it an adapter if the recipe has LoRA.

    The adapter of a checkpoint that holds no more than that is merged, or injected
    (`load_policy`). The frozen base model is a policy with an adapter without it; otherwise, or if
    a recipe with LoRA names another base, it is loaded when a part first asks for it, once.
    """
    policy, tokenizer = load_policy(options.model, merge_adapter=merge_adapter)
    precision = PRECISION[options.model.precision]
    load_base: Callable[[], PreTrainedModel] = partial(load_frozen, options.model, precision)
    if options.model.lora is not None:
        add_adapter(policy, options.model.lora, seed=options.seed)
    if has_adapter(policy) and (options.model.lora is None or options.model.base is None):
        load_base = partial(without_adapter, policy)
    return Resources(
        policy=policy,
        tokenizer=tokenizer,
        load_base=cache(load_base),
        device=resolve_device(options.model.device),
        precision=precision,
        seed=options.seed,
        processes=processes,
    )


def memory_at_hand(options: ModelRecipeOptions, processes: Processes) -> int:
    """Bytes that this process can get before any model is loaded."""
    device = resolve_device(options.model.device)
    return free_memory(device, local_size=processes.local_size)
