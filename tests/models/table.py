"""Tries every causal architecture, and writes the table of docs/models.md.

Each result is kept as soon as it is there, so that a second call goes on where a first one stopped.
Names of architectures as arguments: these are tried again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.models.shrink import architectures
from tests.models.sweep import NotBuiltError, Result, examine

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/models.md"
RESULTS = ROOT / f"build/models-{version('transformers')}.jsonl"
WIDEST = 90
"""Characters of a reason in the table."""
MARKS = "<!-- table -->\n", "<!-- end -->\n"
"""Between them is the table; the rest of the page is written by hand."""
NOT_TRIED, FAILED = "not tried", "failed"


def main(again: list[str]) -> bool:
    """Returns whether no architecture raised anything but a refusal."""
    results = {name: result for name, result in read().items() if name not in again}
    with tqdm([name for name in architectures() if name not in results]) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            results[name] = attempt(name)
            write(results)
    start, end = MARKS
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(start)[0], page.partition(end)[2]
    PAGE.write_text(before + start + table(results) + end + after, encoding="utf-8")
    failed = {name: result for name, result in results.items() if result.layout == FAILED}
    for name, result in failed.items():
        print(f"{name}: {result.why}", file=sys.stderr)
    return not failed


def attempt(name: str) -> Result:
    try:
        return examine(name)
    except NotBuiltError as error:
        return Result(NOT_TRIED, str(error))
    except Exception as error:  # one that fails must not end the others
        return Result(FAILED, f"{type(error).__name__}: {error}")


def read() -> dict[str, Result]:
    if not RESULTS.is_file():
        return {}
    lines = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return {line.pop("name"): Result(**line) for line in lines}


def write(results: dict[str, Result]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"name": name, **asdict(result)}) for name, result in results.items()]
    RESULTS.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def table(results: dict[str, Result]) -> str:
    trained = [r for r in results.values() if r.layout in ("tree", "rows")]
    trees = sum(r.layout == "tree" for r in trained)
    tried = len(trained) + sum(r.layout == "refused" for r in results.values())
    said = (
        f"`make models` has made this table with transformers {version('transformers')}: of "
        f"{tried} architectures {trees} are computed on the tree, {len(trained) - trees} on rows, "
        f"and {tried - len(trained)} are refused in one line."
    )
    lines = [
        said,
        "",
        "| architecture | layout | exact to | remark |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row(name, results[name]))} |" for name in sorted(results)),
    ]
    return "\n".join(lines) + "\n"


def row(name: str, result: Result) -> tuple[str, ...]:
    what = f"`{name}` ({MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]})"
    if result.layout not in ("tree", "rows"):
        return what, result.layout, "", remark(result)
    return what, result.layout, f"{result.gap:.0e}", remark(result)


ROUNDING = 1e-5
"""Nats, in float32."""
CACHES = {
    "": "",
    "continued": "documents are read once",
    "prefilled": "each context is read from its start when it is sampled",
    "none": "sampled without a cache",
}


def remark(result: Result) -> str:
    if result.layout in ("tree", "rows"):
        said = [
            CACHES[result.caching],
            "its hidden states cannot be read" if isinstance(result.features, str) else "",
            f"sampled to {result.sampled:.0e}" if result.sampled > ROUNDING else "",
            "" if result.dtype == "float64" else "in float32",
        ]
        return "; ".join(filter(None, said))
    why = result.why.splitlines()[0]
    if result.layout == "refused":
        why = why.rpartition("because ")[2].removesuffix("; give another model")
    elif result.layout == NOT_TRIED:
        why = "no tiny model can be made: " + why
    why = why.replace("|", "\\|").replace("<", "‹").replace(">", "›").replace("`", "'")
    return why if len(why) <= WIDEST else why[: WIDEST - 1] + "…"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(0 if main(sys.argv[1:]) else 1)
