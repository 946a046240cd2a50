"""The estimate that `--dry-run` prints for a fine-tuning recipe: tokens, FLOPs, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from ebft.data.rows import RowOptions
from ebft.errors import UserError
from ebft.lazy import torch
from ebft.models.cost import GIB, DocumentTree, Memory, flops, memory
from ebft.models.embedded import EMBEDDED
from ebft.models.folders import adapter_folder
from ebft.models.options import ModelOptions, resolve_device
from ebft.models.shape import SHAPES, ModelShape
from ebft.parts.interfaces import Plan
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from ebft.models.options import LoraOptions
    from ebft.parts.kinds import SamplerPart
    from ebft.parts.part import Part
    from ebft.runs.options import FineTuneOptions


TURNS = (4, 16)
"""The turns of conversations whose memory `--dry-run` prints."""


class MemoryNeed(Protocol):
    """The bytes that a process needs for a number of documents at a time."""

    def __call__(self, documents: int, *, keep_logits: bool | None = None) -> float: ...


class Work(NamedTuple):
    """A stage of a step: sampling, features or training."""

    name: str
    tokens: int
    flop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """The cost of a recipe's optimizer step.

    `tree` is that of the longest document, which memory is for, and `typical` that of an average
    one, which tokens and FLOPs are for: the longest too, unless `documents.mean_length` is given.
    `depth` is the fraction of the base model's layers that the features need in training, and
    `reads_base` says whether any feature map needs the frozen base model.
    """

    options: FineTuneOptions
    model: ModelShape
    tree: DocumentTree
    typical: DocumentTree
    adapter: int
    depth: float
    reads_base: bool

    @classmethod
    def of(cls, options: FineTuneOptions, tree: DocumentTree | None = None) -> Self:
        """Makes the estimate of a recipe, for the longest document or another one's `tree`.

        Raises `ValueError` for what cannot be estimated.
        """
        model = model_shape(options.model)
        trained = options.feature_map if options.uses_features else None
        maps = [*options.evaluation.feature_maps(), *([] if trained is None else [trained])]
        longest = recipe_tree(options) if tree is None else tree
        mean = options.documents.mean_length
        return cls(
            options=options,
            model=model,
            tree=longest,
            typical=longest
            if mean is None or tree is not None
            else recipe_tree(options, length=mean),
            adapter=adapter_weights(options.model.lora, model),
            depth=1.0 if options.feature_map is None else options.feature_map.base_depth(),
            reads_base=any(feature_map.base_depth() > 0 for feature_map in maps),
        )

    def work(self) -> list[Work]:
        """The stages for a typical document, in order."""
        options, tree = self.options, self.typical
        work = flops(
            self.model, tree,
            depth=self.depth,
            gradient_checkpointing=options.training.gradient_checkpointing,
            adapter=self.adapter,
            trains_documents=options.objective.gamma > 0,
            keep_logits=options.training.keep_logits is True,
        )  # fmt: skip
        rows = [Work("training", tree.predicting_tokens, work.training)]
        if options.uses_features:
            rows = [Work("features", tree.for_features.tokens, work.features), *rows]
        if options.sampler is not None:
            name = "sampling" if options.sampler.shares_prefixes() else "sampling *"
            rows = [Work(name, tree.sampling_tokens, work.sampling), *rows]
        return rows

    def others(self) -> list[str]:
        """The models that parts load beside the policy and its base, each once."""
        options = self.options
        parts = [options.feature_map, options.reward, *options.evaluation.feature_maps()]
        named = (path for part in parts if part is not None for path in part.other_models())
        return list(dict.fromkeys(named))

    def flops(self) -> float:
        """FLOPs of an optimizer step, not counting evaluations."""
        each = sum(work.flop for work in self.work())
        return each * self.options.training.documents_per_step

    def memory(
        self, micro_batch: int, *, processes: int = 1, keep_logits: bool | None = None
    ) -> Memory:
        """The memory that each process needs. `keep_logits`: as the recipe says if None, where auto
        needs none."""
        options = self.options
        model, lora = options.model, options.model.lora
        if keep_logits is None:
            keep_logits = options.training.keep_logits is True
        # With an adapter, the policy's own weights are the frozen base model.
        shared = lora is not None and model.base is None
        return memory(
            self.model, self.tree,
            micro_batch=micro_batch,
            bytes_per_value=2 if model.precision == "bfloat16" else 4,
            gradient_checkpointing=options.training.gradient_checkpointing,
            frozen=self.reads_base and not shared,
            others=sum(model_shape(ModelOptions(path=path)).parameters for path in self.others()),
            adapter=self.adapter,
            quantized=lora is not None and lora.quantize_base,
            on_cpu=_is_cpu(model.device),
            # With a single process, replicas have no effect.
            shards=max(1, processes // options.parallel.replicas),
            keep_logits=keep_logits,
            decoded=self._decoded(micro_batch, processes),
            loads_whole=model.from_config is not None
            or adapter_folder(model) is not None
            or self.model.is_mixture  # its experts have another form on disk
            or (lora is not None and lora.quantize_base),
            evaluates=options.evaluation.anything(),
            samples_whole=self.tree.on_rows or self._keeps_weights,
        )  # fmt: skip

    @property
    def _keeps_weights(self) -> bool:
        sampler = self.options.sampler
        return sampler is not None and sampler.keeps_weights()

    def _decoded(self, micro_batch: int, processes: int) -> int:
        """The documents whose rollouts `hf_tree` samples together."""
        from ebft.rollout.micro_batches import decoded_together

        if self.tree.on_rows or (processes > 1 and not self._keeps_weights):
            return micro_batch
        together = micro_batch * decoded_together(micro_batch * self.tree.rollouts)
        return max(micro_batch, min(together, self.options.training.documents_per_step))

    def table(self, micro_batch: int) -> str:
        """The text that `--dry-run` prints, for `micro_batch` documents at a time."""
        tree, training, adapter = self.typical, self.options.training, self.adapter
        peak, rows, per_step = self.memory(micro_batch), self.work(), self.flops()
        of = f"{self.options.method} of {self.options.model.name}, "
        of += f"{self.model.parameters / 1e6:,.1f} M parameters"
        of += f" and {adapter / 1e6:,.2f} M of an adapter" if adapter else ""
        rollouts = (
            f"{len(tree.anchors):,} anchors, each with {tree.n} rollouts of {tree.rollout_length} "
            "tokens."
            if tree.rollouts
            else "no rollouts."
        )
        unsure = self.options.model.tries_layouts and tree.rollouts > 0
        on_rows = replace(self, typical=replace(tree, on_rows=True)).flops() / per_step
        other = any(work.name.endswith("*") for work in rows)
        limit = training.micro_batch
        capped = limit != "auto" and limit > micro_batch
        lines = [
            f"Estimate for {of}.",
            f"A document of {tree.length:,} tokens has {rollouts}",
            "",
            f"{'a document':<14}{'tokens':>10}{'TFLOP':>12}",
            *(f"{it.name:<14}{it.tokens:>10,}{it.flop / 1e12:>12,.3f}" for it in rows),
            *(["* with hf_tree; other samplers may recompute contexts"] if other else []),
            *(f"{path}: what it computes is not counted" for path in self.others()),
            "",
            (
                f"a step of {training.documents_per_step} documents: {per_step / 1e12:,.2f} TFLOP; "
                f"{training.steps:,} steps: {per_step * training.steps / 1e12:,.0f} TFLOP, "
                "evaluations not counted"
            ),
            *(
                [f"if the model needs rows (model.attention): {on_rows:.3g} times as many"]
                if unsure
                else []
            ),
            "",
            f"{'memory':<14}{'GiB':>10}",
            *(f"{name:<14}{size / GIB:>10.2f}" for name, size in peak.named().items()),
            (
                f"with {micro_batch} documents of {self.tree.length:,} tokens at a time "
                f"(training.micro_batch = {limit}"
                f"{', capped at the documents of a step' if capped else ''})"
            ),
            *self._with_logits(micro_batch),
            *self._with_turns(micro_batch),
        ]
        return "\n".join(lines)

    def _with_logits(self, micro_batch: int) -> Iterator[str]:
        """A line on the logits that are kept where they fit."""
        if self.options.training.keep_logits == "auto":
            kept = self.memory(micro_batch, keep_logits=True).total
            yield f"{kept / GIB:.2f} GiB if that fits (training.keep_logits = auto)"

    def _with_turns(self, micro_batch: int) -> Iterator[str]:
        """Lines on conversations of several turns, each of which is an anchor."""
        data, tree = self.options.data, self.tree
        if not isinstance(data, RowOptions) or data.messages is None or not tree.rollouts:
            return
        yield "a conversation has an anchor for each turn:"
        for turns in TURNS:
            need = replace(self, tree=recipe_tree(self.options, turns=turns)).memory(micro_batch)
            yield f"{f'{turns} turns':<14}{need.total / GIB:>10.2f}"


def memory_need(
    options: FineTuneOptions, *, processes: int = 1, tree: DocumentTree | None = None
) -> MemoryNeed:
    """Returns a function from a number of documents at a time to the bytes that a process needs.

    The documents are the longest, or have this `tree`. The function raises `ValueError` for a
    recipe that cannot be estimated.
    """
    estimate = cache(lambda: StepEstimate.of(options, tree))  # the same for all numbers

    def need(documents: int, *, keep_logits: bool | None = None) -> float:
        how = estimate().memory(documents, processes=processes, keep_logits=keep_logits)
        return how.total

    return need


def _is_cpu(device: str) -> bool:
    """Whether `model.device` is the CPU; a named device need not exist on this machine."""
    name = resolve_device(device).type if device == "auto" else device
    return name == "cpu"


def describe_rows(plan: Part, sampler: SamplerPart | None, length: int) -> str:
    """What rows cost in place of the tree for a document of `length` tokens, and what lowers it, to
    follow a sentence."""
    try:
        tree = document_tree(plan, sampler, length)
    except ValueError:
        return ""
    if not tree.rollouts:
        return ""
    rows = replace(tree, on_rows=True)
    times = rows.predicting_tokens / tree.predicting_tokens
    advice = ""
    if len(tree.anchors) > 1:
        advice = "; a larger plan.stride or plan completion lowers that"
    return (
        f"; training forwards {rows.predicting_tokens:,} tokens of a document of {tree.length:,} "
        f"tokens, {times:.3g} times as many as on the tree{advice}"
    )


def recipe_tree(
    options: FineTuneOptions, *, length: int | None = None, turns: int = 1
) -> DocumentTree:
    """The tree of a recipe's longest document, or of one of `length` tokens; of a conversation with
    so many turns, if the plan looks at them. Raises `ValueError` for a plan that has to be built
    first."""
    return document_tree(
        options.plan, options.sampler, options.documents.length if length is None else length,
        turns=turns, on_rows=options.model.attention == "rows",
    )  # fmt: skip


def document_tree(
    plan: Part,
    sampler: SamplerPart | None,
    length: int,
    *,
    turns: int = 1,
    on_rows: bool = False,
) -> DocumentTree:
    """The tree of a document of `length` tokens, by the plan itself, or its rows.

    Without a sampler it is the document alone. `turns` are evenly spaced; with one, its end is that
    of the document. Raises `ValueError` for a plan that has to be built first.
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"the anchors of plan {type(plan).__name__} are not known before a run")
    tokens = torch.zeros(length, dtype=torch.long)
    each = max(length // turns, 2)
    last = max(each - plan.rollout_length, 1)  # where in its share of the document a turn starts
    spans = tuple((end - each + last, end) for end in range(each, length + 1, each) if turns > 1)
    document = Document("longest", tokens, max(length - plan.rollout_length, 1), turns=spans)
    return tree_of(document, plan, sampler, on_rows=on_rows)


def tree_of(
    document: Document, plan: Plan, sampler: SamplerPart | None, *, on_rows: bool
) -> DocumentTree:
    """The tree of a document, or its rows; without a sampler the document alone."""
    length = document.tokens.numel()
    if sampler is None:
        no_anchors: Sequence[int] = []
        return DocumentTree(length, no_anchors, 0, plan.rollout_length, on_rows)
    anchors = plan([document]).anchor.tolist()
    return DocumentTree(length, anchors, sampler.n, plan.rollout_length, on_rows)


def adapter_weights(lora: LoraOptions | None, model: ModelShape) -> int:
    """The number of weights of the LoRA adapter; 0 without one."""
    if lora is None:
        return 0
    names = None if lora.target_modules == "all-linear" else lora.target_modules
    try:
        return model.adapter_weights(lora.rank, names)
    except ValueError as error:
        raise ValueError(f"model.lora.target_modules = {lora.target_modules}: {error}") from error


def model_shape(model: ModelOptions) -> ModelShape:
    """The model's dimensions, from its configuration on this machine or from the table `SHAPES`.

    Nothing is downloaded, and no code of the model is run: only runs do that. Raises `ValueError`
    for a model with neither.
    """
    if model.base is not None and (adapter_folder(model) is not None or not _is_here(model.path)):
        # An adapter has no shape of its own; a checkpoint that is not there yet will have this one.
        model = model.model_copy(update={"path": model.base, "revision": None})
    if model.from_config is not None:
        from ebft.models.new import new_config

        return ModelShape.of(new_config(model.from_config))
    assert model.path is not None, "validated"
    return _model_shape(model.path, model.revision or "main")


def _is_here(path: str | None) -> bool:
    return path is not None and Path(path).expanduser().is_dir()


@cache
def _model_shape(path: str, revision: str) -> ModelShape:
    if path == EMBEDDED:
        return SHAPES[EMBEDDED]
    from transformers import AutoConfig

    from ebft.models.refused import check_configuration, refusing

    folder = Path(path).expanduser()
    source = str(folder) if folder.is_dir() else path
    says = f"model.path = {path}"
    remedy = "its configuration must be on this machine"
    try:
        check_configuration(source, revision, says=says, remedy=remedy, local_files_only=True)
        with refusing(f"{says}: cannot be loaded", remedy, folder=source):
            config = AutoConfig.from_pretrained(
                source, revision=revision, trust_remote_code=False, local_files_only=True
            )
    except UserError:
        if path in SHAPES:
            return SHAPES[path]
        raise
    return ModelShape.of(config)
