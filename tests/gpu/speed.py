"""Parts that measure time: a step's phases with MFU, and the tree against the public layout."""

from __future__ import annotations

from functools import partial

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models.attention import TREE
from ebft.testing import tiny_documents
from tests.benchmarks import mfu, tree
from tests.benchmarks.mfu import COMMON, PHASES, SHAPES, Setting, Step
from tests.gpu.report import Place, Report

GOALS = {"training": 0.35, "whole step": 0.25}
"""MFU at 1.5B in bfloat16."""
REPEATS = 2


def phases(report: Report, place: Place, *, model: str, attention: str) -> None:
    """Parts `phases-…`: a step of 16 documents, S 1,024, G 8, n 4, with random weights."""
    if place.rehearse:  # FlexAttention cannot train on a CPU
        attention = {"flex": "dense"}.get(attention, attention)
        setting = Setting(
            model="tiny", attention=attention, precision="float32", device="cpu", length=40,
            documents=2, micro_batch=2,
        )  # fmt: skip
    else:
        setting = Setting(model=model, attention=attention, device=place.device)
    step, found = Step(setting), {}
    for name in PHASES:
        found[name] = mfu.measure(step, name)
        _add(report, name, found[name], goals=model == "qwen2.5-1.5b")
    _add(report, "whole step", mfu.whole(list(found.values()), setting),
         goals=model == "qwen2.5-1.5b")  # fmt: skip
    for name in PHASES:
        report.attach(f"{name}.txt", mfu.top_operators(getattr(step, name), setting.device))


def _add(report: Report, name: str, phase: mfu.Phase, *, goals: bool) -> None:
    report.figure(f"{name}: time", phase.seconds, "s")
    report.figure(f"{name}: peak", phase.peak_bytes / 2**30, "GiB")
    goal = GOALS.get(name)
    if goals and goal is not None:
        report.check(f"{name}: MFU", phase.mfu, at_least=goal, only_on_gpu=True)
    else:
        report.figure(f"{name}: MFU", phase.mfu)


PARTS = {
    f"phases-{size}-{attention}": partial(phases, model=f"qwen2.5-{size}", attention=attention)
    for size in ("0.5b", "1.5b")
    for attention in ("tree", "flex")
}


def layouts(report: Report, place: Place) -> None:
    """Part `layouts`: the same results in both, then their times and their memory, in float32."""
    config = Qwen2Config(**SHAPES[place.sized("qwen2.5-0.5b", "tiny")], **COMMON)
    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_config(config, attn_implementation=TREE)
    policy = policy.to(place.on).eval()
    frozen = AutoModelForCausalLM.from_config(config, attn_implementation=TREE)
    frozen.load_state_dict(policy.state_dict())
    frozen = frozen.to(place.on).eval().requires_grad_(False)
    length = place.sized(1024, 48)
    (document,) = tiny_documents([length], vocabulary=config.vocab_size)
    bench = tree.Bench(policy, frozen, document)
    bench.check()
    report.figure("same tokens, features, loss and gradient", "yes")
    bench.run("tree", "step")  # so that the optimizer has its state
    figures = tree.timed_layouts(bench, REPEATS, f"S {length}")
    for phase, name in tree.NAMES.items():
        ours = figures["tree", phase]
        report.figure(f"{name}: time", ours.seconds, "s")
        for layout in ("public", "fused"):
            theirs = figures[layout, phase]
            report.figure(f"{name}: {layout} / tree, time", theirs.seconds / ours.seconds, "×")
            ratio = theirs.memory / max(ours.memory, 1)
            report.figure(f"{name}: {layout} / tree, memory", ratio, "×")
    step = figures["public", "step"].seconds / figures["tree", "step"].seconds
    report.check("the public layout takes", step, at_least=1, unit="× the tree", only_on_gpu=True)
