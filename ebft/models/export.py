"""Writes a policy as a folder that `from_pretrained` loads, and takes its weights back from one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ebft.models.lora import ADAPTER_NAME, has_adapter, merged, without_adapter
from ebft.models.rows import mesh_of, rows_like, with_rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


NOT_LOADED = ("missing_keys", "unexpected_keys", "mismatched_keys")
"""What `from_pretrained` only reports: it initializes missing weights at random."""
ADAPTER = "adapter"
"""The folder of the adapter inside that of a merged model."""
WRAPPED = "base_model.model."
"""What `peft.PeftModel`, which loads an adapter's file, puts before the names of a model."""


class WholeWeights(NamedTuple):
    """Weights that were divided over processes, put together: of the model without an adapter (or
    with it merged), and of the adapter. Those that are not to be saved are left out."""

    model: dict[str, Tensor]
    adapter: dict[str, Tensor]


def save_policy(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    weights: WholeWeights | None = None,
    merge_adapter: bool = False,
) -> None:
    """Weights as safetensors, configuration and tokenizer, into an existing folder.

    `weights` are the policy's own unless its processes have gathered them. Of a policy with an
    adapter, the adapter alone; or, with `merge_adapter`, the whole model with the adapter merged
    into it, and the adapter in a folder of its own inside.
    """
    tokenizer.save_pretrained(folder)
    adapter = None if weights is None else weights.adapter
    if has_adapter(policy) and not merge_adapter:
        save_adapter(policy, folder, adapter)
        return
    if weights is None:
        merged(policy).save_pretrained(folder)
    else:
        without_adapter(policy).save_pretrained(folder, state_dict=weights.model)
    if has_adapter(policy):
        (folder / ADAPTER).mkdir()
        save_adapter(policy, folder / ADAPTER, adapter)


def load_weights(policy: PreTrainedModel, folder: Path) -> None:
    """Gives the policy the weights that `save_policy` wrote, to the last bit.

    Raises `ValueError` if they are another architecture's.
    """
    if has_adapter(policy):
        inside = folder / ADAPTER
        load_adapter(policy, inside if inside.is_dir() else folder)
        return
    try:
        # transformers may name weights otherwise on disk than in the model; it maps them back. The
        # configuration is the policy's: a damaged one could ask for a model of any size.
        model_class, mesh = type(policy), mesh_of(policy)
        if mesh is not None:
            model_class = with_rows(model_class, mesh)
        saved, info = model_class.from_pretrained(
            folder, config=policy.config, dtype=torch.float32, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
        if differing := sorted({str(name) for kind in NOT_LOADED for name in info[kind]}):
            raise ValueError(f"other weights than the model's: {', '.join(differing[:3])}")
        _copy(saved.state_dict(), policy.state_dict())
    except Exception as error:  # what transformers raises for damaged files is no fixed set
        raise ValueError(f"the weights in {folder} do not fit the model: {error}") from error


def save_adapter(
    policy: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Writes the adapter alone, as `peft.PeftModel.from_pretrained` loads it.

    `weights` are the policy's own unless its processes have gathered them.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    adapter = get_peft_model_state_dict(
        policy, weights, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )
    named = {WRAPPED + name: weight.contiguous() for name, weight in adapter.items()}
    save_file(named, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    config = copy.copy(policy.peft_config[ADAPTER_NAME])
    config.inference_mode = True  # as in PEFT: who loads it does not train it by default
    config.save_pretrained(str(folder))


def load_adapter(policy: PreTrainedModel, folder: Path) -> None:
    """Gives the policy's adapter the weights that `save_adapter` wrote, to the last bit.

    Raises `ValueError` if they are another adapter's.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no adapter: {error}") from error
    weights = {name.removeprefix(WRAPPED): weight for name, weight in saved.items()}
    own = get_peft_model_state_dict(policy, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    shapes, expected = ({k: w.shape for k, w in part.items()} for part in (weights, own))
    if shapes != expected:
        raise ValueError(f"the adapter in {folder} does not fit the policy's model.lora")
    _copy(weights, own)


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> None:
    """Copies values into tensors of the same names, in place; of divided ones only the rows that
    this process has."""
    if values.keys() != to.keys():
        raise ValueError(f"other weights than the model's: {sorted(values.keys() ^ to.keys())[:3]}")
    for name, tensor in to.items():
        tensor.copy_(rows_like(tensor, values[name]))
