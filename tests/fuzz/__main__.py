"""Runs a fuzzer: `python -m tests.fuzz recipe|data|checkpoint [--minutes 10] [--seed 0]`.

An input that crashes is shrunk, shown and written to the working directory; the exit status is 1.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import HealthCheck, given, seed, settings
from tqdm import tqdm

from tests.fuzz.targets import TARGETS, holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ebft-fuzz-") as folder:
        import datasets

        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        datasets.disable_progress_bars()
        return fuzz(arguments, Path(folder))


def fuzz(arguments: argparse.Namespace, folder: Path) -> int:
    target = TARGETS[arguments.target](folder)
    rng = random.Random(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    counts = {True: 0, False: 0}
    with tqdm(desc=arguments.target, unit="input", mininterval=5) as bar:
        while time.monotonic() < end:

            @seed(rng.getrandbits(64))
            @settings(
                max_examples=100, deadline=None, database=None,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(target.inputs)
            def run(given):
                counts[holds(target, given)] += 1
                bar.update()

            try:
                run()
            except Exception:
                print(f"{sum(counts.values()):,} inputs before the crash", file=sys.stderr)
                raise
    print(f"{arguments.target}: {counts[True]:,} inputs taken, {counts[False]:,} refused, no crash")
    return 0


if __name__ == "__main__":
    sys.exit(main())
