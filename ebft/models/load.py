"""Loads the policy and frozen copies of its base model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from pydantic import AliasPath, BaseModel, Field, TypeAdapter
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ebft.config.about import ABOUT
from ebft.errors import UserError
from ebft.files import Flag, parse_json, read_text, record
from ebft.models import flex
from ebft.models.attention import DENSE, FLEX, TREE, keep_caps
from ebft.models.folders import ACCEPTED, PATH, adapter_folder, is_checkpoint, model_folder
from ebft.models.lora import with_adapter
from ebft.models.new import KEY, new_model, new_tokenizer
from ebft.models.options import ModelOptions, resolve_device
from ebft.models.quantize import quantize_to, round_to_nf4
from ebft.models.refused import check_configuration, refusing
from ebft.models.tokenizer import check_vocabulary
from ebft.models.weights import not_arrived

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("ebft")
Loaded = TypeVar("Loaded")

BASE = "model.base"
CONVERTED = (
    "its weights have another form on disk than in memory, so each process loads them whole, and "
    "the main process gathers them to save them"
)
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""The files of tokenizers; each tokenizer has at least one of them."""


class TrainedOn(BaseModel):
    """Whether the run that wrote a checkpoint had quantized its base model to 4 bits."""

    quantize_base: Flag = Field(
        False, validation_alias=AliasPath("recipe", "model", "lora", "quantize_base")
    )


TRAINED_ON = TypeAdapter(TrainedOn)
ATTENTION = {"auto": TREE, "tree": TREE, "flex": FLEX, "dense": DENSE, "rows": None}
"""The implementations by their names in a recipe; None is the model's own."""


def load_policy(
    options: ModelOptions, *, merge_adapter: bool = True, mesh: DeviceMesh | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads or makes the model with float32 weights (or a base in 4 bits), and its tokenizer.

    For a folder that holds only an adapter, `model.base` is loaded and gets that adapter: merged
    into its weights, or injected if `merge_adapter` is False.

    With a `mesh` of processes, each reads its own rows of the weights (`models.rows`). A new model,
    one with an adapter and one in 4 bits are loaded whole: they are computed from whole weights. So
    are those whose experts transformers puts together.

    The model is in eval mode, because with dropout the log-probs in training would differ from
    those in sampling. Raises `UserError` naming `model.path` if there is no such model, if its
    files lack weights, if the tokenizer is another model's, and for `flex` on a CPU.
    """
    if options.attention == "flex" and resolve_device(options.device).type == "cpu":
        raise UserError(flex.NO_BACKWARD)
    quantize = options.lora is not None and options.lora.quantize_base
    model = _load(options, torch.float32, quantize=quantize, merge_adapter=merge_adapter, mesh=mesh)
    tokenizer = load_tokenizer(options)
    check_vocabulary(model, tokenizer, says=f"{PATH} = {options.name}")
    if options.eos_token is not None:
        for config in (model.config, model.generation_config):
            config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def load_frozen(
    options: ModelOptions,
    dtype: torch.dtype,
    *,
    key: str = PATH,
    mesh: DeviceMesh | None = None,
) -> PreTrainedModel:
    """Loads the base model (`model.base`, else `model.path`) in `dtype`, without gradients.

    `key` is the option that names the path, and `mesh` is as in `load_policy`. Raises `UserError`
    if the base's tokenizer is not the policy's.
    """
    if options.base is None:
        return _load(options, dtype, key=key, mesh=mesh).requires_grad_(False)
    base = _base_of(options)
    tokenizer = load_tokenizer(base, key=BASE)
    if tokenizer.get_vocab() != load_tokenizer(options).get_vocab():
        raise UserError(
            f"{BASE} = {options.base}: its tokens are not those of {PATH} = {options.path}; give "
            "the model that it was trained from"
        )
    # A run that quantized its base model computed the features with the quantized weights.
    rounded = options.path is not None and _had_quantized_base(Path(options.path).expanduser())
    model = _load(base, dtype, key=BASE, rounded=rounded, mesh=mesh)
    check_vocabulary(model, tokenizer, says=f"{BASE} = {options.base}")
    return model.requires_grad_(False)


def load_outline(options: ModelOptions) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads the tokenizer, and the model without its weights: on the meta device, for its sizes.

    Raises `UserError` naming `model.path` if there is no tokenizer or no configuration.
    """
    tokenizer = load_tokenizer(options)
    if (new := options.from_config) is not None:
        with torch.device("meta"):
            return new_model(new, torch.float32, attention=None), tokenizer
    adapted = adapter_folder(options) is not None and options.base is not None
    key, options = (BASE, _base_of(options)) if adapted else (PATH, options)
    says, source = f"{key} = {options.path}", _source(options, key)
    path = source["pretrained_model_name_or_path"]
    check_configuration(path, source["revision"], says=says, remedy=ACCEPTED)
    with refusing(f"{says}: cannot be loaded", ACCEPTED, folder=path):
        model = _outline(source)
    check_vocabulary(model, tokenizer, says=says)
    return model, tokenizer


def _outline(source: Mapping[str, Any]) -> PreTrainedModel:
    """The model without its weights, on the meta device. Raises what transformers raises."""
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(**source, return_dict=True)
        model = AutoModelForCausalLM.from_config(
            config, trust_remote_code=source["trust_remote_code"]
        )
    return cast("PreTrainedModel", model)


def load_tokenizer(options: ModelOptions, *, key: str = PATH) -> PreTrainedTokenizerBase:
    """Loads or makes the model's tokenizer; without a padding token, end-of-sequence pads.

    Its end-of-sequence token is `model.eos_token`, if the recipe has that. If `model.path` holds an
    adapter without a tokenizer, the tokenizer of `model.base` is loaded. `key` is the option that
    names the model.
    """
    if options.from_config is not None:
        return _with_end(new_tokenizer(options.from_config), options)
    adapter = adapter_folder(options)
    if adapter is not None and options.base is not None and not _has_tokenizer(adapter):
        log.info("%s = %s: has no tokenizer; using that of %s", PATH, options.path, BASE)
        return load_tokenizer(_base_of(options), key=BASE)
    says, source = f"{key} = {options.path}", _source(options, key)
    with refusing(
        f"{says}: has no tokenizer that transformers can load",
        "give a folder with the tokenizer that the model was trained with",
        folder=source["pretrained_model_name_or_path"],
    ):
        tokenizer = AutoTokenizer.from_pretrained(**source)
        tokenizer("a")  # a damaged tokenizer may fail only when it is used
    tokenizer = _with_end(cast("PreTrainedTokenizerBase", tokenizer), options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _with_end(tokenizer: PreTrainedTokenizerBase, options: ModelOptions) -> PreTrainedTokenizerBase:
    """Gives the tokenizer the end-of-sequence token of `model.eos_token`, if there is one."""
    if options.eos_token is None:
        return tokenizer
    if options.eos_token not in tokenizer.get_vocab():
        raise UserError(
            f"model.eos_token = {options.eos_token}: the tokenizer of {options.name} has no such "
            "token; give one of its vocabulary, as the chat template writes it"
        )
    tokenizer.eos_token = options.eos_token
    return tokenizer


def _had_quantized_base(checkpoint: Path) -> bool:
    """Whether a checkpoint's adapter was trained on a base model in 4 bits (QLoRA)."""
    about = checkpoint / ABOUT
    if not about.is_file():
        return False  # written by another program
    try:
        return record(parse_json(read_text(about)), TRAINED_ON).quantize_base
    except ValueError as error:
        raise UserError(f"{about} is damaged: {error}; take another checkpoint") from error


def _base_of(options: ModelOptions) -> ModelOptions:
    return options.model_copy(update={"path": options.base, "base": None, "revision": None})


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)


def _load(
    options: ModelOptions,
    dtype: torch.dtype,
    *,
    key: str = PATH,
    quantize: bool = False,
    rounded: bool = False,
    merge_adapter: bool = True,
    mesh: DeviceMesh | None = None,
) -> PreTrainedModel:
    device, adapter = resolve_device(options.device), adapter_folder(options)
    if adapter is not None and options.base is None:
        raise UserError(
            f"{key} = {options.path}: holds an adapter without its model; set {BASE} to the model "
            "that it was trained from"
        )
    if adapter is None:
        model = _load_model(options, key, dtype, mesh=None if quantize or rounded else mesh)
    else:
        model = _load_model(_base_of(options), BASE, dtype)
    keep_caps(model)
    if rounded or (adapter is not None and _had_quantized_base(adapter)):
        round_to_nf4(model)
    if adapter is not None:
        # Other programs may adapt heads or embeddings, which ebft supports only merged.
        merge = merge_adapter or not is_checkpoint(options)
        model = with_adapter(model, adapter, merge=merge)
    if quantize:
        quantize_to(model, device)
    else:
        model.to(device)
    return cast("PreTrainedModel", model.eval())


def _load_model(
    options: ModelOptions, key: str, dtype: torch.dtype, *, mesh: DeviceMesh | None = None
) -> PreTrainedModel:
    """Loads a model that is not an adapter, or makes a new one. With a `mesh`, a model that is
    loaded has only this process's rows. Raises `UserError` if its files lack weights, or its
    configuration makes no model."""
    if (new := options.from_config) is not None:
        with refusing(f"{KEY}.config: makes no model", "change its sizes", folder=None):
            return _with_attention(options.attention, partial(new_model, new, dtype))
    says, source = f"{key} = {options.path}", _source(options, key)
    path = source["pretrained_model_name_or_path"]
    check_configuration(path, source["revision"], says=says, remedy=ACCEPTED)

    def load(attention: str | None) -> tuple[PreTrainedModel, dict[str, Any]]:
        how = {
            "dtype": dtype,
            "attn_implementation": attention,
            "use_safetensors": True,
            "ignore_mismatched_sizes": True,  # they are refused below, by name
            "output_loading_info": True,
        }
        if mesh is not None:
            from ebft.models.rows import load_rows
            from ebft.models.write_rows import tensors_on_disk

            outline = _outline(source)
            if tensors_on_disk(outline) is not None:
                return load_rows(outline, source, how, mesh)
            log.info("%s: %s", says, CONVERTED)
        model, info = AutoModelForCausalLM.from_pretrained(**source, **how, return_dict=True)
        return model, info

    with refusing(f"{says}: cannot be loaded", ACCEPTED, folder=path):
        model, info = _with_attention(options.attention, load)
    if (problem := not_arrived(model, info)) is not None:
        where = "" if mesh is None or not info["mismatched_keys"] else "of a process's rows, "
        raise UserError(f"{says}: {where}{problem}")
    return model


def _with_attention(name: str, load: Callable[[str | None], Loaded]) -> Loaded:
    """Loads with the implementation that `name` is for; for auto with the model's own, if the model
    does not know that of a tree."""
    try:
        return load(ATTENTION[name])
    except KeyError:
        # Older architectures know a fixed set of attention implementations.
        if name != "auto":
            raise
        return load(ATTENTION["rows"])


def _source(options: ModelOptions, key: str) -> dict[str, Any]:
    return {
        "pretrained_model_name_or_path": model_folder(options, key=key),
        "revision": options.revision or "main",
        "trust_remote_code": options.trust_remote_code,
    }
