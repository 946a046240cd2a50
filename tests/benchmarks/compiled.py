"""Training with `training.compile` and without: time, peak memory, and what compiling costs.

    python -m tests.benchmarks.compiled         writes docs/benchmarks/compiled.md

The document, the policy and the measurements of `tests.benchmarks.tree`, first as it is, then with
its layers compiled, in an empty cache. Sizes are symbols, so only the first length compiles.
"""

import os
import tempfile
from datetime import date
from time import perf_counter

import torch

from ebft.models.layers import compile_layers
from tests.benchmarks.machine import ROOT, commit, hardware
from tests.benchmarks.peak import MIB
from tests.benchmarks.tree import Bench, Measured, measure, together

PAGE = ROOT / "docs" / "benchmarks" / "compiled.md"
LENGTHS, REPEATS = (256, 512), 3
HEADER = """\
# Compiled layers

    python -m tests.benchmarks.compiled

{date}, commit {commit}, {hardware}, torch {torch}, float32.

Forward and backward of SmolLM2-135M over the tree of one document, as in
[the tree's benchmark](tree.md), without and with `training.compile`. Times are medians of
{repeats}. The first forward and backward took {compiling:.0f} s more.

| S | as it is, s | compiled, s | **faster** | peak memory, MiB | compiled |
| ---: | ---: | ---: | ---: | ---: | ---: |
"""


def run(length: int) -> tuple[str, float]:
    """A row, and the seconds that compiling took."""
    bench = Bench.of_embedded(length)
    bench.run("tree", "step")  # so that the optimizer has its state

    def repeated() -> Measured:
        return together([measure(bench, bench.tree_train) for _ in range(REPEATS)])

    plain = repeated()
    compile_layers(bench.policy)
    start = perf_counter()
    bench.tree_train()
    bench.update()
    first = perf_counter() - start
    compiled = repeated()
    row = (
        f"| {length} | {plain.seconds:.2f} | {compiled.seconds:.2f} | "
        f"**{plain.seconds / compiled.seconds:.2f}×** | {plain.memory / MIB:,.0f} | "
        f"{compiled.memory / MIB:,.0f} |\n"
    )
    return row, first - compiled.seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        rows, compiling = zip(*(run(length) for length in LENGTHS), strict=True)
    head = HEADER.format(
        date=date.today(), commit=commit(), hardware=hardware(), torch=torch.__version__,
        repeats=REPEATS, compiling=compiling[0],
    )  # fmt: skip
    PAGE.write_text(head + "".join(rows), encoding="utf-8")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
