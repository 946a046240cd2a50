"""Start-up time and memory of a file of raw text: in lists, on disk, and tokenised on demand.

    python -m tests.benchmarks.data         writes docs/benchmarks/data.md

The file has runs of lines of the standard library, drawn from a seed. Each way to read it is
measured in a process of its own, after one that has put the file's texts into the cache.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import sysconfig
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from tests.benchmarks.machine import ROOT, commit

PAGE = ROOT / "docs" / "benchmarks" / "data.md"
SIZES = (16, 64)  # MiB
WAYS = {
    "lists": "texts and tokens in lists, as before",
    "rows": "texts on disk, all tokenised first",
    "on demand": "texts on disk, tokenised on demand",
}
COLUMNS = (
    "MiB of text", "way", "reading and splitting, s", "tokenising, s", "a step's documents, s",
    "documents", "tokens each", "memory, MiB",
)  # fmt: skip
LENGTH = 1024
DOCUMENTS = 16
TEXT = """\
# Data larger than memory

    python -m tests.benchmarks.data

Commit {commit}, {machine}, one thread, Python {python}.

A JSONL file of Python code in texts of 50 to 300 lines, documents of at most {length:,} tokens, a
step of {documents}. The file's texts have been put into the cache before. Memory is private memory
above that of the imports; what is mapped from disk is not in it.

{table}

On demand, what is left of the start is one pass over the texts to find copies and one to measure
them, and some 30 bytes of memory for each. A step then tokenises what it takes. Documents are cut
by characters, so they are somewhat shorter than they might be.
"""


def write_texts(file: Path, mebibytes: int) -> None:
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    lines = [line for source in sources for line in source.read_text("utf-8").splitlines(True)]
    rng, written = random.Random(0), 0
    with file.open("w", encoding="utf-8") as out:
        while written < mebibytes * 2**20:
            at = rng.randrange(len(lines))
            text = "".join(lines[at : at + rng.randint(50, 300)])
            written += out.write(json.dumps({"text": text}) + "\n")


def measure(file: Path, way: str) -> dict[str, float]:
    """Times in seconds, and MiB of private memory above what the imports take."""
    import psutil
    from transformers import AutoTokenizer

    from ebft.data.documents import DocumentOptions, tokenize
    from ebft.data.files import Files
    from ebft.data.order import DocumentOrder
    from ebft.models.embedded import embedded_model
    from ebft.rollout.strided import Strided

    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    options = DocumentOptions(length=LENGTH, on_demand=way == "on demand")
    plan = Strided(start=8, stride=8, rollout_length=8)
    process = psutil.Process()
    before, times = process.memory_full_info().uss, [perf_counter()]
    texts = Files(path=file, completion="text")().train
    if way == "lists":
        texts = list(texts)
    times.append(perf_counter())
    documents = tokenize(texts, tokenizer, options, plan, split="train").documents
    times.append(perf_counter())
    taken = [documents[place] for place in DocumentOrder(0, len(documents))(0, DOCUMENTS)]
    times.append(perf_counter())
    split, tokenised, step = (after - then for then, after in pairwise(times))
    return {
        "split": split,
        "tokenised": tokenised,
        "step": step,
        "documents": len(documents),
        "tokens": sum(document.tokens.numel() for document in taken) / DOCUMENTS,
        "memory": (process.memory_full_info().uss - before) / 2**20,
    }


def measure_apart(file: Path, way: str, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.data", "--file", str(file), "--way", way]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def page(rows: list[list[str]]) -> str:
    head = [f"| {' | '.join(COLUMNS)} |", f"| ---: | --- |{' ---: |' * (len(COLUMNS) - 2)}"]
    return TEXT.format(
        commit=commit(),
        machine=platform.machine(),
        python=platform.python_version(),
        length=LENGTH,
        documents=DOCUMENTS,
        table="\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.file, arguments.way)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            file, cache = Path(folder, f"{size}.jsonl"), Path(folder, "cache")
            write_texts(file, size)
            measure_apart(file, "on demand", cache)  # converts it
            for way, name in WAYS.items():
                found = measure_apart(file, way, cache)
                rows.append([
                    str(size), name, f"{found['split']:.1f}", f"{found['tokenised']:.1f}",
                    f"{found['step']:.3f}", f"{found['documents']:,}", f"{found['tokens']:.0f}",
                    f"{found['memory']:.0f}",
                ])  # fmt: skip
                print(*rows[-1], sep=" | ")
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
