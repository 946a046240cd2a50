"""What a step of a fine-tuning recipe costs: tokens, FLOPs, memory, as `--dry-run` prints it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from ebft.cost import DocumentTree, Memory, flops, memory
from ebft.errors import UserError
from ebft.interfaces import Plan, SamplerOptions, base_depth
from ebft.models.configuration import check_configuration
from ebft.models.embedded import EMBEDDED
from ebft.models.known_shapes import SHAPES
from ebft.models.load import adapter_folder, resolve_device
from ebft.models.refusing import refusing
from ebft.models.shape import ModelShape
from ebft.rollout.records import Document
from ebft.samplers.hf_tree import HfTree

if TYPE_CHECKING:
    from ebft.runs.finetune_options import FineTuneOptions


@runtime_checkable
class _HasFeatureMap(Protocol):
    feature_map: object


def step_flops(options: FineTuneOptions) -> float:
    """FLOPs of an optimizer step, evaluations not counted. Raises `ValueError`
    saying what cannot be known."""
    work = work_of_document(options, model_shape(options), document_tree(options))
    return sum(flop for _, _, flop in work) * options.training.documents_per_step


def work_of_document(
    options: FineTuneOptions, model: ModelShape, tree: DocumentTree
) -> list[tuple[str, int, float]]:
    """What is done with the longest document: name, tokens, FLOPs."""
    checkpointing = options.training.gradient_checkpointing
    work = flops(
        model,
        tree,
        depth=base_depth(options.feature_map),
        gradient_checkpointing=checkpointing,
        adapter=adapter_weights(options, model),
        trains_documents=options.objective.gamma > 0,
    )
    rows = [("training", tree.predicting_tokens, work.training)]
    if options.uses_features:
        rows = [("features", tree.tokens, work.features), *rows]
    if options.sampler is not None:
        name = "sampling" if isinstance(options.sampler, HfTree) else "sampling *"
        rows = [(name, tree.predicting_tokens, work.sampling), *rows]
    return rows


def estimate_memory(options: FineTuneOptions, micro_batch: int, *, processes: int = 1) -> Memory:
    """Memory of each of the processes at its peak. Raises `ValueError` saying what cannot be
    known."""
    model = model_shape(options)
    sets = options.evaluation.sets
    evaluators = [*options.evaluation.evaluators, *(it for one in sets for it in one.evaluators)]
    feature_maps = [part.feature_map for part in evaluators if isinstance(part, _HasFeatureMap)]
    if options.uses_features:
        feature_maps.append(options.feature_map)
    reads_base = any(base_depth(feature_map) > 0 for feature_map in feature_maps)
    # With an adapter, the policy's own weights are the frozen base model.
    shared = options.model.lora is not None and options.model.base is None
    return memory(
        model,
        document_tree(options),
        micro_batch=micro_batch,
        bytes_per_value=2 if options.model.precision == "bfloat16" else 4,
        gradient_checkpointing=options.training.gradient_checkpointing,
        frozen=reads_base and not shared,
        adapter=adapter_weights(options, model),
        quantized=options.model.lora is not None and options.model.lora.quantize_base,
        on_cpu=_is_cpu(options.model.device),
        # A single process has no use for replicas.
        shards=max(1, processes // options.parallel.replicas),
    )


def _is_cpu(device: str) -> bool:
    """Whether `model.device` names the CPU; the device itself need not be on this machine."""
    name = resolve_device(device).type if device == "auto" else device
    return name == "cpu"


def document_tree(options: FineTuneOptions) -> DocumentTree:
    """The tree of the longest document that the recipe allows, by the plan itself.

    Without a sampler it is the document alone.
    """
    plan, sampler, length = options.plan, options.sampler, options.documents.length
    if not isinstance(plan, Plan):
        raise ValueError(f"plan {type(plan).__name__} is not known before it is built")
    if sampler is None:
        return DocumentTree(length, [], 0, plan.rollout_length)
    if not isinstance(sampler, SamplerOptions):
        raise ValueError(f"sampler {type(sampler).__name__} has no option `n`")
    prompt = max(length - plan.rollout_length, 1)
    contexts = plan([Document("longest", torch.zeros(length, dtype=torch.long), prompt)])
    return DocumentTree(length, contexts.anchor.tolist(), sampler.n, plan.rollout_length)


def adapter_weights(options: FineTuneOptions, model: ModelShape) -> int:
    """Weights of the recipe's LoRA adapter; 0 if it has none."""
    lora = options.model.lora
    if lora is None:
        return 0
    names = None if lora.target_modules == "all-linear" else lora.target_modules
    try:
        return model.adapter_weights(lora.rank, names)
    except ValueError as error:
        raise ValueError(f"model.lora.target_modules = {lora.target_modules}: {error}") from error


def model_shape(options: FineTuneOptions) -> ModelShape:
    """The model's dimensions, from its configuration on this machine or from what is known of it:
    nothing is downloaded."""
    model = options.model
    if model.base is not None and adapter_folder(model) is not None:
        model = model.model_copy(update={"path": model.base, "revision": None})
    return _model_shape(model.path, model.revision or "main", model.trust_remote_code)


@cache
def _model_shape(path: str, revision: str, trust_remote_code: bool) -> ModelShape:
    from transformers import AutoConfig

    if path == EMBEDDED:
        return SHAPES[EMBEDDED]
    folder = Path(path).expanduser()
    source = str(folder) if folder.is_dir() else path
    says = f"model.path = {path}"
    remedy = "its configuration must be on this machine"
    try:
        check_configuration(source, revision, says=says, remedy=remedy, local_files_only=True)
        with refusing(f"{says}: cannot be loaded", remedy, folder=source):
            config = AutoConfig.from_pretrained(
                source, revision=revision, trust_remote_code=trust_remote_code,
                local_files_only=True,
            )  # fmt: skip
    except UserError:
        if path in SHAPES:
            return SHAPES[path]
        raise
    return ModelShape.of(config)
