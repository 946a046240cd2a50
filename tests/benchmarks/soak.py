"""A long run watched from outside: memory and open files must not grow.

    python -m tests.benchmarks.soak                 an hour; writes docs/benchmarks/soak.md
    python -m tests.benchmarks.soak --minutes 2     writes nothing

EBFT of the embedded model on short documents, with rollouts shown, held-out evaluations, gradients
measured and checkpoints all along; then SIGTERM, which has to end it with a checkpoint. Exits with
status 1 if memory or open files have grown.
"""

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
from tqdm import tqdm

from tests.benchmarks.machine import ROOT, commit, hardware

PAGE = ROOT / "docs" / "benchmarks" / "soak.md"
RECIPE = ROOT / "recipes" / "ebft_full.yaml"
OVERRIDES = [
    "documents.length=64", "plan.start=16", "plan.stride=16", "sampler.n=2",
    "training.steps=1000000", "training.documents_per_step=2", "training.micro_batch=1",
    "training.show_rollouts_every=20", "training.measure_gradients_every=25",
    "transforms=[{_component_: whiten_running}]", "baseline=moving_average",
    "evaluation.documents=4", "evaluation.evaluators.1.n=2", "evaluation.every=50",
    "checkpoint.every=50", "lr_scheduler=null", "optimizer.lr=1e-6",
]  # fmt: skip
EVERY, ROWS, WARM_UP = 5.0, 12, 2
MIB = 2**20
GROWTH = 0.02
"""Of the median resident set, from the first rows after the warm-up to the last ones."""


class Sample(NamedTuple):
    minutes: float
    step: int
    resident: float
    files: int
    threads: int


def watch(process: psutil.Process, run: Path, minutes: float) -> list[Sample]:
    """Samples of the process until so many minutes are over or it has ended."""
    samples: list[Sample] = []
    began = time.monotonic()
    with tqdm(total=minutes, unit="min", bar_format="{l_bar}{bar}| {n:.1f}/{total:.0f} min") as bar:
        while (passed := (time.monotonic() - began) / 60) < minutes:
            time.sleep(EVERY)
            try:
                with process.oneshot():
                    resident = process.memory_info().rss / MIB
                    files, threads = process.num_fds(), process.num_threads()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                break
            samples.append(Sample(passed, last_step(run), resident, files, threads))
            bar.update(passed - bar.n)
    return samples


def last_step(run: Path) -> int:
    """The newest optimizer step in the run's metric file."""
    logs = list((run / "logs").glob("*.txt"))
    steps = re.findall(r"^Step (\d+) \| .*grad_norm", logs[0].read_text(), re.M) if logs else []
    return int(steps[-1]) if steps else 0


def rows(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples since the first step, in equal parts."""
    trained = [sample for sample in samples if sample.step]
    bounds = [round(i * len(trained) / ROWS) for i in range(ROWS + 1)]
    return [trained[a:b] for a, b in pairwise(bounds)]


def median(part: Sequence[Sample], field: str) -> float:
    return statistics.median(float(sample._asdict()[field]) for sample in part)


def growth(parts: Sequence[Sequence[Sample]], field: str) -> tuple[float, float]:
    """Medians of the first two parts after the warm-up, and of the last two."""
    early = [*parts[WARM_UP], *parts[WARM_UP + 1]]
    return median(early, field), median([*parts[-2], *parts[-1]], field)


def table(parts: Sequence[Sequence[Sample]]) -> str:
    lines = [
        "| minutes | steps | resident set, MiB: median | largest | open files | threads |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {part[-1].minutes:.0f} | {part[-1].step:,} | {median(part, 'resident'):,.0f} "
        f"| {max(s.resident for s in part):,.0f} | {median(part, 'files'):.0f} "
        f"| {median(part, 'threads'):.0f} |"
        for part in parts
    ]
    return "\n".join(lines)


def soak(minutes: float) -> tuple[list[Sample], int]:
    """The samples, and the exit status after SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="ebft-soak-") as folder:
        run, log = Path(folder, "run"), Path(folder, "log")
        command = [sys.executable, "-m", "ebft.cli.main", "run", str(RECIPE)]
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*command, *OVERRIDES, f"output_dir={run}"], stdout=stream, stderr=stream
            )
            try:
                samples = watch(psutil.Process(process.pid), run, minutes)
                process.send_signal(signal.SIGTERM)
                status = process.wait(timeout=300)
            finally:
                process.kill()
        if status != 128 + signal.SIGTERM:
            raise SystemExit(f"exit status {status}\n{log.read_text()[-4000:]}")
        saved = len(list((run / "checkpoints").glob("step-*")))
        assert saved, "SIGTERM ends a run with a checkpoint"
        return samples, status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    samples, status = soak(minutes)
    parts = rows(samples)
    text = table(parts)
    early, late = growth(parts, "resident")
    files_early, files_late = growth(parts, "files")
    verdict = (
        f"After the warm-up the median resident set goes from {early:,.0f} to {late:,.0f} MiB "
        f"({late / early - 1:+.1%}), open files from {files_early:.0f} to {files_late:.0f}."
    )
    print(text, verdict, sep="\n\n")
    if minutes >= 60:
        PAGE.write_text(
            "# An hour's soak\n\n    python -m tests.benchmarks.soak\n\n"
            "EBFT of SmolLM2-135M in float32 on documents of 64 tokens, two a step, with running "
            "whitening and a\nmoving baseline; rollouts shown every 20 steps, gradients measured "
            "every 25, an evaluation and a\ncheckpoint every 50. A row is a twelfth of the time. "
            f"Then SIGTERM: exit status {status}, a checkpoint.\n\n{text}\n\n{verdict}\n\n"
            f"{date.today()}, commit {commit()}; {hardware()}.\n",
            encoding="utf-8",
        )
    if late > early * (1 + GROWTH) or files_late > files_early:
        raise SystemExit("memory or open files have grown")


if __name__ == "__main__":
    main()
