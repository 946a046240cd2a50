"""Rows against the tree: the same recipes with `model.attention` = tree and = rows.

    python -m tests.benchmarks.rows         writes docs/benchmarks/rows.md

Each run is a process of its own, of `STEPS` steps without evaluations; both layouts must give the
same losses. Time is that of the fastest step; the peak is the largest resident set of the process,
as the kernel counts it, so Python, torch and the data are in it. Only the ratios are printed.
"""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from ebft.config.load import load_recipe
from ebft.runs.estimate import StepEstimate
from tests.benchmarks.machine import ROOT, commit, hardware

PAGE = ROOT / "docs" / "benchmarks" / "rows.md"
STEPS, LAYOUTS = 3, ("tree", "rows")
"""The first step has the learning rate 0, the second updates, and the third is after an update."""
DATA = Path(email.__file__).parent
"""A package of the standard library, so that it is read in a moment."""
TOP_K = 20
"""Tokens that are sampled from. Among all 49,152 many are so unlikely that float32 rounding decides
between neighbours, and one token decides all that follow it."""
PLANS = {
    "completion": ("ebft_completion", ["documents.shortest=192"]),
    "strided, stride 64": ("ebft_full", ["plan.stride=64"]),
    "strided, stride 32": ("ebft_full", []),
}
LOSSES = ("ce", "policy_gradient_loss")
SAME = 1e-5


@dataclass
class Measured:
    """The seconds of the fastest step, bytes at the peak, and the losses of each step."""

    seconds: float
    peak: int
    losses: list[list[float]]


def overrides(plan: str, layout: str) -> list[str]:
    return [
        *PLANS[plan][1],
        f"data.path={DATA}",
        f"model.attention={layout}",
        f"sampler.top_k={TOP_K}",
        f"training.steps={STEPS}",
        "training.documents_per_step=1",
        "training.micro_batch=1",
        "training.show_rollouts_every=100",
        "evaluation.evaluators=[]",
        "checkpoint.every=null",
    ]


def recipe(plan: str) -> Path:
    return ROOT / "recipes" / f"{PLANS[plan][0]}.yaml"


def measure(plan: str, layout: str) -> Measured:
    with tempfile.TemporaryDirectory(prefix="ebft-rows-") as folder:
        options = [*overrides(plan, layout), f"output_dir={folder}/run"]
        command = [sys.executable, "-m", "ebft.cli.main", "run", str(recipe(plan)), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {' '.join(command)}")
        lines = Path(folder, "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [step for step in map(json.loads, lines) if "seconds" in step]
    assert len(steps) == STEPS
    return Measured(
        min(step["seconds"] for step in steps),
        usage.ru_maxrss * 1024,
        [[step[key] for key in LOSSES] for step in steps],
    )


def line(plan: str, tree: Measured, rows: Measured) -> str:
    """A row of the table. Raises `AssertionError` if the losses are not the same."""
    gap = max(
        abs(a - b)
        for ours, theirs in zip(tree.losses, rows.losses, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    assert gap <= SAME, (plan, tree.losses, rows.losses)
    counts = [
        StepEstimate.of(load_recipe(recipe(plan), overrides(plan, layout)).options)
        for layout in LAYOUTS
    ]
    trained = [count.tree.predicting_tokens for count in counts]
    memory = [count.memory(1).total for count in counts]
    return (
        f"| {plan} | {trained[0]:,} | {trained[1]:,} | {trained[1] / trained[0]:.1f}× "
        f"| {counts[1].flops() / counts[0].flops():.1f}× | **{rows.seconds / tree.seconds:.1f}×** "
        f"| {memory[1] / memory[0]:.2f}× | **{rows.peak / tree.peak:.2f}×** | {gap:.0e} |"
    )


NOTE = """\
Rows over the tree, of a step of one document of up to 256 tokens. Tokens are those that training
forwards for a document of 256; FLOPs are those of a whole step, in which sampling costs the same on
both. Counts are the cost model's, as `--dry-run` prints them; the ratios of time and peak memory
beside them are measured, and the memory is that of the whole process. Rows compute a batch of
texts with about as many tokens as the tree, forward and once more in backward, so that they need
about as much memory. Both layouts sample the same tokens, from the {top_k} likeliest: among all,
float32 rounding decides between some that are unlikely.
"""


HEADER = """\
# Rows against the tree

    python -m tests.benchmarks.rows

{date}, commit {commit}, {hardware}, torch {torch}. SmolLM2-135M, float32.

{note}
| plan | tokens, tree | tokens, rows | ratio | FLOPs | **time** | memory, estimated | **measured** | losses differ by |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""  # noqa: E501


def main() -> None:
    """Writes the page."""
    runs = tqdm(list(product(PLANS, LAYOUTS)))
    measured = {}
    for plan, layout in runs:
        measured[plan, layout] = found = measure(plan, layout)
        runs.write(f"{plan}, {layout}: {found}")
    lines = [line(plan, *(measured[plan, layout] for layout in LAYOUTS)) for plan in PLANS]
    header = HEADER.format(
        date=date.today(),
        commit=commit(),
        hardware=hardware(),
        torch=torch.__version__,
        note=NOTE.format(top_k=TOP_K),
    )
    PAGE.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
