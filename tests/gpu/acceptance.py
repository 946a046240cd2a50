"""What to run first on a machine with a GPU: everything of ebft that only a GPU can show.

    python -m tests.gpu.acceptance                             all parts, on the GPU
    python -m tests.gpu.acceptance --parts equality,resume     some of them
    python -m tests.gpu.acceptance --minutes 14                those that fit into the time
    python -m tests.gpu.acceptance --rehearse                  tiny shapes, on the CPU

Each part runs in a process of its own, so that a part that fails does not stop the next, and writes
its figures into a small file as soon as it has them. The table at the end has the figures of all
files in the folder, so a second quarter of an hour adds to the first. docs/gpu.md explains it.
"""

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from ebft.errors import first_line
from tests.benchmarks.machine import ROOT
from tests.gpu import equality, learning, runs, speed
from tests.gpu.report import FAILED, PASSED, SKIPPED, Place, Report, Skip

NO_TIME = "no time"


class Part(NamedTuple):
    """A part, and the seconds that it is expected to take on an H200 and in a rehearsal."""

    run: Callable[[Report, Place], None]
    on_gpu: int
    rehearsed: int

    def expected(self, rehearse: bool) -> int:
        return self.rehearsed if rehearse else self.on_gpu


PARTS = {
    "equality": Part(equality.equality, 90, 10),
    "lora": Part(equality.adapters, 30, 10),
    "resume": Part(runs.resume, 60, 15),
    "halving": Part(runs.halving, 60, 15),
    "memory": Part(runs.estimate, 150, 60),
    "phases-0.5b-tree": Part(speed.PARTS["phases-0.5b-tree"], 60, 10),
    "phases-0.5b-flex": Part(speed.PARTS["phases-0.5b-flex"], 120, 10),
    "phases-1.5b-tree": Part(speed.PARTS["phases-1.5b-tree"], 90, 10),
    "phases-1.5b-flex": Part(speed.PARTS["phases-1.5b-flex"], 150, 10),
    "layouts": Part(speed.layouts, 120, 15),
    "learning": Part(learning.learning, 420, 40),
    "vllm": Part(learning.vllm, 150, 60),
}
QUICK = ("equality", "lora", "resume", "halving")
"""What shows within five minutes whether results on this GPU are right."""
NEVER_ALONE = 60
"""Seconds that a part may take in any case: a rehearsal's machine may be busy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts and prints the table; 0 if every part that was asked for has passed."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"parts: {', '.join(PARTS)}; quick: {', '.join(QUICK)}",
    )
    parser.add_argument("--parts", default="all", help="all, quick, or names with commas between")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on the CPU")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "acceptance")
    parser.add_argument("--alone", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    device = "cpu" if arguments.rehearse else "cuda"
    place = Place(device, arguments.rehearse, arguments.minutes, arguments.out.resolve())
    place.folder.mkdir(parents=True, exist_ok=True)
    if arguments.alone:
        return alone(arguments.alone, place)
    names = chosen(arguments.parts, parser)
    began = perf_counter()
    for name in names:
        left = 60 * arguments.minutes - (perf_counter() - began)
        run_apart(name, place, left)
    found = read(place.folder)
    print(table(found))
    done = {PASSED, SKIPPED}
    return 0 if all(found[name]["status"] in done for name in names) else 1


def chosen(parts: str, parser: argparse.ArgumentParser) -> list[str]:
    named = {"all": list(PARTS), "quick": list(QUICK)}
    names = named.get(parts) or [name.strip() for name in parts.split(",")]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: there is no {', '.join(unknown)}; give some of {', '.join(PARTS)}")
    return names


def alone(name: str, place: Place) -> int:
    """Runs a part in this process."""
    report = Report(name, place)
    report.write()
    try:
        PARTS[name].run(report, place)
    except Skip as why:
        report.end(SKIPPED, str(why))
        return 0
    except Exception as error:
        traceback.print_exc()
        report.end(FAILED, f"{type(error).__name__}: {first_line(error)}")
        return 1
    report.judge()
    return 0 if report.status == PASSED else 1


def run_apart(name: str, place: Place, left: float) -> None:
    """Runs a part in a process of its own, in the seconds that are left."""
    expected = PARTS[name].expected(place.rehearse)
    report = Report(name, place)
    if expected > left:
        report.end(
            NO_TIME, f"it is expected to take {expected} s, and {max(0, left):.0f} s are left"
        )
        return
    print(f"{name}: about {expected} s …", flush=True)
    command = [sys.executable, "-m", "tests.gpu.acceptance", "--alone", name]
    minutes = max(expected, min(left, NEVER_ALONE)) / 60
    command += ["--out", str(place.folder), "--minutes", str(minutes)]
    command += ["--rehearse"] if place.rehearse else []
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads that spin take the core from others
        **os.environ,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with this
    }
    log = place.folder / f"{name}.log"
    status: int | str
    with log.open("w", encoding="utf-8") as out:
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
                timeout=left,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = f"stopped after {left:.0f} s"
    written = read(place.folder).get(name)
    if written is None or written["status"] == "running":  # it could not say so itself
        report.figures = {} if written is None else written["figures"]
        report.end(FAILED, f"{status}; see {log.name}")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports in the folder, by their part, in the order of the parts."""
    files = {name: folder / f"{name}.json" for name in PARTS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def table(reports: dict[str, dict[str, Any]]) -> str:
    """All figures, each with its limits and whether it is within them."""
    rows = []
    for name, report in reports.items():
        expected = PARTS[name].expected(report["rehearsal"])
        head = f"{report['seconds']:.0f} s of about {expected} s"
        rows.append(("", name, head, "", f"{report['status']} {report['why']}".strip()))
        for figure, found in report["figures"].items():
            limits = [f"≥ {found['at_least']:.3g}"] if "at_least" in found else []
            limits += [f"≤ {found['at_most']:.3g}"] if "at_most" in found else []
            judged = {True: "ok", False: "OUTSIDE", None: ""}[found.get("passed")]
            rows.append(("  ", figure, _shown(found), " ".join(limits), judged))
    if not rows:
        return "no part has run"
    names, values, limits = (max(len(row[i]) for row in rows) for i in (1, 2, 3))
    first = next(iter(reports.values()))
    lines = [f"{first['hardware']}, torch {first['torch']}, commit {first['commit']}"]
    lines += [
        f"{indent}{name:<{names + 2 - len(indent)}}  {value:>{values}}  {limit:<{limits}}  {judged}"
        for indent, name, value, limit, judged in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _shown(figure: dict[str, Any]) -> str:
    value = figure["value"]
    number = value if isinstance(value, str) else f"{value:.4g}"
    return f"{number} {figure['unit']}".strip()


if __name__ == "__main__":
    sys.exit(main())
