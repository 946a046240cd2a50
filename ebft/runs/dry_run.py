"""The table of `--dry-run`: what a step costs, by the cost model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebft.models.load import resolve_device
from ebft.runs.estimate import (
    adapter_weights,
    document_tree,
    estimate_memory,
    model_shape,
    step_flops,
    work_of_document,
)
from ebft.runs.free_memory import free_memory
from ebft.runs.memory import GIB, choose_micro_batch

if TYPE_CHECKING:
    from ebft.runs.finetune_options import FineTuneOptions


def estimate_table(options: FineTuneOptions) -> str:
    """Tokens, FLOPs and memory of a step. Raises `ValueError` saying what cannot be known."""
    tree, model = document_tree(options), model_shape(options)
    training, adapter = options.training, adapter_weights(options, model)
    micro_batch = training.micro_batch
    if micro_batch == "auto":  # else the device need not be on this machine
        free = free_memory(resolve_device(options.model.device))
        micro_batch = choose_micro_batch(options, free)
    peak = estimate_memory(options, micro_batch)
    rows = work_of_document(options, model, tree)
    per_step = step_flops(options)
    document = f"A document of {tree.length:,} tokens has "
    document += (
        f"{len(tree.anchors):,} anchors, each with {tree.n} rollouts of {tree.rollout_length} "
        "tokens."
        if tree.rollouts
        else "no rollouts."
    )
    whole = (
        f"a step of {training.documents_per_step} documents: {per_step / 1e12:,.2f} TFLOP; "
        f"{training.steps:,} steps: {per_step * training.steps / 1e12:,.0f} TFLOP, "
        "evaluations not counted"
    )
    other = any(name.endswith("*") for name, _, _ in rows)
    of = f"{options.method} of {options.model.path}, {model.parameters / 1e6:,.1f} M parameters"
    of += f" and {adapter / 1e6:,.2f} M of an adapter" if adapter else ""
    lines = [
        f"Estimate for {of}.",
        document,
        "",
        f"{'a document':<14}{'tokens':>10}{'TFLOP':>12}",
        *(f"{name:<14}{tokens:>10,}{flop / 1e12:>12,.3f}" for name, tokens, flop in rows),
        *(["* as hf_tree would; other samplers may compute contexts anew"] if other else []),
        "",
        whole,
        "",
        f"{'memory':<14}{'GiB':>10}",
        *(
            f"{name:<14}{size / GIB:>10.2f}"
            for name, size in (
                ("Python, torch", peak.process),
                ("weights", peak.weights),
                ("gradients", peak.gradients),
                ("Adam", peak.optimizer),
                ("frozen model", peak.frozen),
                ("activations", peak.activations),
                ("logits", peak.logits),
                ("or an update", peak.update),
                ("or sampling", peak.sampling),
                ("or at the start", peak.loading),
                ("peak, about", peak.total),
            )
        ),
        f"with {micro_batch} documents at a time (training.micro_batch = {training.micro_batch})",
    ]
    return "\n".join(lines)
