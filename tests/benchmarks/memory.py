"""Peak memory of training, measured in processes of their own, beside the estimate of --dry-run.

    python -m tests.benchmarks.memory         writes docs/benchmarks/memory.md

Two steps of recipes/ebft_full.yaml (the second has the optimizer's state) without evaluations. The
peak is the largest resident set of the process, as the kernel counts it, so Python, torch and the
data are in it.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from itertools import product
from pathlib import Path

from tqdm import tqdm

from ebft.config.load import load_recipe
from ebft.runs.estimate import StepEstimate
from tests.benchmarks.machine import ROOT, commit

PAGE = ROOT / "docs" / "benchmarks" / "memory.md"
RECIPE = ROOT / "recipes" / "ebft_full.yaml"
MICRO_BATCHES = (1, 4)
KINDS = {
    "all weights": [],
    "all weights, gradient checkpointing": ["training.gradient_checkpointing=true"],
    "LoRA, rank 16": ["model.lora.rank=16"],
    "QLoRA, rank 16": ["model.lora.rank=16", "model.lora.quantize_base=true"],
}
GIB = 2**30


def overrides(micro_batch: int, kind: str) -> list[str]:
    return [
        *KINDS[kind],
        "training.steps=2",
        f"training.micro_batch={micro_batch}",
        "training.show_rollouts_every=100",
        "evaluation.evaluators=[]",
        "checkpoint.every=null",
    ]


def measure(options: list[str], device: str = "cpu") -> int:
    """Bytes at the peak: of the resident set, or on a GPU of what torch has allocated."""
    with tempfile.TemporaryDirectory(prefix="ebft-memory-") as folder:
        command = [sys.executable, "-m", "ebft.cli.main", "run", str(RECIPE), *options]
        process = subprocess.Popen(
            [*command, f"model.device={device}", f"output_dir={folder}/run"],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {' '.join(command)}")
        if device != "cpu":
            steps = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
            return int(max(json.loads(step)["memory_gib"] for step in steps) * GIB)
        return usage.ru_maxrss * 1024


def main() -> None:
    rows = []
    for kind, micro_batch in tqdm(list(product(KINDS, MICRO_BATCHES))):
        options = overrides(micro_batch, kind)
        recipe = load_recipe(RECIPE, options).options
        estimate = StepEstimate.of(recipe).memory(micro_batch).total
        peak = measure(options)
        print(kind, micro_batch, estimate / GIB, peak / GIB, flush=True)
        rows.append(
            f"| {kind} | {micro_batch} | {estimate / GIB:.2f} "
            f"| {peak / GIB:.2f} | {estimate / peak - 1:+.0%} |"
        )
    PAGE.write_text(
        "# Memory: the estimate and the peak\n\n    python -m tests.benchmarks.memory\n\n"
        f"{date.today()}, commit {commit()}. SmolLM2-135M, float32, documents of 256 tokens with 7 "
        "anchors of 4 rollouts of 8\ntokens, AdamW. The peak is the largest resident set of a "
        "process that runs two steps.\n\n"
        "| trained | micro-batch | estimate, GiB | peak, GiB | off by |\n"
        "| --- | ---: | ---: | ---: | ---: |\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
