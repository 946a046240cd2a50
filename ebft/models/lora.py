"""LoRA: an adapter that peft injects into the policy; the policy without it, or merged with it.

An injected policy is the Hugging Face model that it was, with some of its linear layers wrapped.
The models made from it here are new modules around the same weights: nothing is switched on or off
in the policy, and only merged layers take memory of their own.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ebft.errors import UserError, first_line, suggest
from ebft.models.decoder import decoder
from ebft.models.layers import linear_layers
from ebft.models.options import LoraOptions
from ebft.models.quantize import dense, is_quantized
from ebft.models.refused import refusing
from ebft.models.rows import rows_like, set_aside, without_memory
from ebft.models.whole import twins
from ebft.parts.packages import missing

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_NAME = "default"
"""peft's name of an adapter that is the only one."""
INSTALL_NEWER = "it may be of a newer peft; or give its whole folder"
log = logging.getLogger("ebft")
Replace = Callable[[nn.Module], nn.Module | None]
"""What to put in place of a module; None for one to look into."""


def add_adapter(policy: PreTrainedModel, options: LoraOptions, *, seed: int) -> None:
    """Injects an adapter, in place; from then on only its weights take gradients.

    It changes nothing yet, for B = 0; A is random, and depends on `seed` alone. Raises `UserError`
    if peft is missing, and for `target_modules` that the policy does not have.
    """
    _require_peft("model.lora")
    from peft import LoraConfig, inject_adapter_in_model

    targets = options.target_modules
    if not isinstance(targets, str):
        _check_targets(policy, targets)
    short = None if isinstance(targets, str) or _has_other_towers(policy) else targets
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=policy.name_or_path,
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=_of_decoder(policy, targets),
    )
    experts = _experts(policy)
    # peft makes an adapter on the CPU, with torch's global generator, and then moves it.
    # It takes a divided weight for one of a tensor-parallel layer, which has its rows alone.
    with (
        torch.random.fork_rng(devices=[]),
        _fitting_packages(),
        set_aside(policy, without_memory),
    ):
        torch.default_generator.manual_seed(seed)
        # By its configuration peft also knows layers that an architecture does not call.
        modules = _Modules(policy) if experts else policy
        try:
            inject_adapter_in_model(config, modules, ADAPTER_NAME)
        except ValueError as error:  # of layers that some architectures do not call
            raise UserError(
                f"model.lora: {type(policy).__name__} takes no such adapter ({first_line(error)}); "
                "name the linear layers in model.lora.target_modules"
            ) from error
    policy.peft_config = modules.peft_config
    if short is not None:  # as the recipe names them, for other programs
        config.target_modules = set(short)
    policy.eval()
    if experts:
        log.warning(
            "model.lora: only linear layers get an adapter; %d weights of experts, such as %s, "
            "stay as they are",
            len(experts), experts[0],
        )  # fmt: skip


class _Modules(nn.Module):
    """The modules of a policy without its configuration.

    By a configuration's `model_type`, peft 0.20 and later replace some targets by parameters of
    experts and of their router, which ebft does not train.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        for name, child in policy.named_children():
            self.add_module(name, child)


def _experts(policy: PreTrainedModel) -> list[str]:
    """The decoder's weights that hold a matrix for each of several experts."""
    return [
        f"{name}.{key}"
        for name, module in decoder(policy).named_modules()
        if not isinstance(module, nn.Conv1d)
        for key, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3
    ]


def with_adapter(model: PreTrainedModel, folder: Path, *, merge: bool) -> PreTrainedModel:
    """A base model with the adapter of a folder: merged into its weights, or injected in place.

    In bfloat16 only the second computes what the run did: of W + ΔW, rounded as one, updates that
    are small beside W are lost. Raises `UserError` if peft is missing, for an adapter that is no
    change of the model's weights (a prompt, a prefix), and for one that is another model's.
    """
    says = f"model.path = {folder}"
    _require_peft(f"{says}: holds an adapter")
    from peft import PeftConfig, PeftModel

    if not any((folder / name).is_file() for name in ADAPTER_WEIGHTS):
        raise UserError(f"{says}: holds no {ADAPTER_WEIGHTS[0]}; give the adapter's whole folder")
    remedy = "set model.base to the model that it was trained from"
    with refusing(f"{says}: its adapter cannot be loaded", INSTALL_NEWER, folder=folder):
        config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise UserError(
            f"{says}: its adapter ({config.peft_type.value}) changes no weights but puts others "
            "before a text, which cannot be merged; give a model, or an adapter such as LoRA's"
        )
    config.inference_mode = True
    with (
        refusing(f"{says}: its adapter does not fit model.base", remedy, folder=folder),
        _fitting_packages(),
    ):
        adapted = PeftModel(model, config, ADAPTER_NAME)
        problem = _load_into(adapted, folder)
    if problem is not None:
        raise UserError(f"{says}: its adapter does not fit model.base ({problem}); {remedy}")
    if not merge:
        return model
    if not getattr(config, "ensure_weight_tying", False):
        _untie_if_adapted(model)
    remedy = "merge it with the program that made it, and give the merged model"
    with refusing(f"{says}: its adapter cannot be merged", remedy, folder=folder):
        merged_model: PreTrainedModel = adapted.merge_and_unload()
    # As any other model: peft has frozen it, and left word that it has an adapter.
    if has_adapter(merged_model):
        del merged_model.peft_config
    return merged_model.requires_grad_(True)


def _load_into(adapted: PeftModel, folder: Path) -> str | None:
    """Gives an adapter the weights of a folder. What differs between them then; None if nothing
    does: peft passes over weights that have other names."""
    from peft import get_peft_model_state_dict, load_peft_weights

    device = str(adapted.device)
    loaded = adapted.load_adapter(str(folder), ADAPTER_NAME, torch_device=device)
    saved = load_peft_weights(str(folder), device=device)
    own = get_peft_model_state_dict(adapted, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    if missing := [name for name in own if name not in saved]:
        return f"{len(missing)} of its weights are not in its files, {missing[0]} for one"
    if extra := [name for name in loaded.unexpected_keys if name not in own]:
        return f"{len(extra)} weights in its files have no place, {extra[0]} for one"
    # VeRA's and others' random matrices are made anew, by a generator that may be another.
    if other := [name for name in own if not torch.equal(own[name], saved[name].to(own[name]))]:
        return f"{len(other)} of its weights are others than in its files, {other[0]} for one"
    return None


def _untie_if_adapted(model: PreTrainedModel) -> None:
    """An adapter of one of two tied matrices is none of the other, so merged they are two."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embedding, head = (
        cast(Any, it.get_base_layer() if isinstance(it, BaseTunerLayer) else it) for it in ends
    )
    if (embedding, head) != ends and embedding.weight is head.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether an adapter was injected."""
    return hasattr(model, "peft_config")


def without_adapter(policy: PreTrainedModel) -> PreTrainedModel:
    """The base model inside a policy with an adapter: other modules, the very same weights.

    A policy that has no adapter is returned as it is.
    """
    if not has_adapter(policy):
        return policy
    base = _rebuilt(policy, _base_layer)
    twins[base] = policy
    return base


def cast_base(policy: PreTrainedModel, precision: torch.dtype) -> None:
    """Keeps the frozen matrices of the layers in the precision of forwards, in place.

    Autocast would cast the same weights to the same numbers, but anew in every forward: it
    remembers casts only of weights that are trained. An adapter that is trained stays as it is.
    """
    for layer in linear_layers(policy).values():
        weight = layer.weight
        if not weight.requires_grad and not is_quantized(weight):
            weight.data = weight.data.to(precision)


def merged(policy: PreTrainedModel) -> PreTrainedModel:
    """The policy as a model without adapters: W + alpha/rank · B·A in place of the three.

    W is what the policy computes with: of a base in 4 bits or in bfloat16 (`cast_base`) the numbers
    that those stand for. All weights are in float32 then, or in float64 if they were. Layers that
    had less and merged layers are copies; everything else is the policy's own. A policy that has no
    adapter is returned as it is.
    """
    return _rebuilt(policy, _merged_layer) if has_adapter(policy) else policy


def _require_peft(who: str) -> None:
    if (lacking := missing("peft")) is not None:
        raise UserError(f"{who}: {lacking}")


@contextmanager
def _fitting_packages() -> Iterator[None]:
    """Raises `UserError` if peft refuses the release of another package that it would use."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"model.lora: peft {version('peft')}: {first_line(error)}; install releases that fit "
            "each other, or remove the other package: pip uninstall torchao"
        ) from error


def _of_decoder(policy: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """Full names of the decoder's linear layers that are adapted: all, or those of `targets`."""
    return [
        name
        for name in linear_layers(policy)
        if isinstance(targets, str) or any(f".{name}".endswith(f".{it}") for it in targets)
    ]


def _has_other_towers(policy: PreTrainedModel) -> bool:
    """Whether there are linear layers besides those of the decoder and the LM head."""
    every = [module for module in policy.modules() if isinstance(module, nn.Linear)]
    return len(every) - len(linear_layers(policy)) > 1


def _check_targets(policy: PreTrainedModel, targets: Sequence[str]) -> None:
    layers = linear_layers(policy)
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[-1] for name in layers})
            raise UserError(
                f"model.lora.target_modules = {target}: {type(policy).__name__} has no such linear "
                f"layer{suggest(target, known)}"
            )


def _rebuilt(policy: PreTrainedModel, replace: Replace) -> PreTrainedModel:
    twin = _twin(policy, replace)
    del twin.peft_config
    return cast("PreTrainedModel", twin)


def _twin(module: nn.Module, replace: Replace) -> nn.Module:
    """The module with what `replace` has something for replaced; itself if there is nothing."""
    if (replaced := replace(module)) is not None:
        return replaced
    children = {
        name: None if child is None else _twin(child, replace)
        for name, child in module._modules.items()
    }
    if all(children[name] is child for name, child in module._modules.items()):
        return module
    # Not copy.copy, which FSDP's modules refuse. All but the children is shared, so hooks that
    # gather a layer's weights do so for both. What torch.compile made is the original's forward.
    twin: nn.Module = object.__new__(type(module))
    twin.__dict__ = {**module.__dict__, "_modules": children, "_compiled_call_impl": None}
    return twin


def _base_layer(module: nn.Module) -> nn.Module | None:
    from peft.tuners.lora import LoraLayer

    return cast(nn.Module, module.get_base_layer()) if isinstance(module, LoraLayer) else None


@torch.no_grad()
def _merged_layer(module: nn.Module) -> nn.Module | None:
    base: Any = _base_layer(module)
    if base is not None:
        delta = cast(Any, module).get_delta_weight(ADAPTER_NAME)
        whole = rows_like(delta, _in_float32(base.weight)) + delta
    elif isinstance(module, nn.Linear) and _in_float32(module.weight) is not module.weight:
        base, whole = module, _in_float32(module.weight)
    else:
        return None
    twin = copy.copy(base)
    weight = nn.Parameter(whole, requires_grad=False)
    twin._parameters = {**base._parameters, "weight": weight}
    return cast(nn.Module, twin)


def _in_float32(weight: Tensor) -> Tensor:
    """The numbers that a weight stands for, in float32 at least."""
    numbers = dense(weight)
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
