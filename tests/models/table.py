"""Tries every causal architecture, and writes the table of docs/models.md."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.models.shrink import architectures
from tests.models.sweep import NotBuiltError, Result, examine

PAGE = Path(__file__).parents[2] / "docs/models.md"
WIDEST = 90
"""Characters of a reason in the table."""
MARKS = "<!-- table -->\n", "<!-- end -->\n"
"""Between them is the table; the rest of the page is written by hand."""


def main():
    results = {}
    for name in architectures():
        try:
            results[name] = examine(name)
        except NotBuiltError as error:
            results[name] = Result("not tried", str(error))
        print(name, results[name], file=sys.stderr)
    start, end = MARKS
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(start)[0], page.partition(end)[2]
    PAGE.write_text(before + start + table(results) + end + after, encoding="utf-8")


def table(results: dict[str, Result]) -> str:
    trained = [r for r in results.values() if r.layout in ("tree", "rows")]
    trees = sum(r.layout == "tree" for r in trained)
    tried = len(trained) + sum(r.layout == "refused" for r in results.values())
    said = (
        f"`python -m tests.models.table` has made this table with transformers "
        f"{version('transformers')}: of {tried} architectures {trees} are computed on the tree, "
        f"{len(trained) - trees} on rows, and {tried - len(trained)} are refused in one line: "
        "encoders with an LM head, whose tokens see later ones, and a few others."
    )
    lines = [
        said,
        "",
        "| architecture | layout | exact to | remark |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row(name, result))} |" for name, result in results.items()),
    ]
    return "\n".join(lines) + "\n"


def row(name: str, result: Result) -> tuple[str, ...]:
    what = f"`{name}` ({MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]})"
    if result.layout not in ("tree", "rows"):
        return what, result.layout, "", remark(result)
    return what, result.layout, f"{result.gap:.0e}", remark(result)


def remark(result: Result) -> str:
    if result.layout == "tree":
        return "" if result.dtype == torch.float64 else "in float32"
    why = result.why.splitlines()[0]
    if result.layout == "rows":
        cache = {
            "continued": "documents are read once",
            "prefilled": "each context is read from its start when it is sampled",
            "none": "sampled without a cache",
        }[result.caching]
        return cache + ("" if result.dtype == torch.float64 else "; in float32")
    if result.layout == "refused":
        if "nor on rows, because its log-probs" in why:
            return "its log-probs depend on later tokens, or its head is not one linear layer"
        why = why.rpartition("because ")[2].removesuffix("; give another model")
    else:
        why = "no tiny model can be made: " + why
    why = why.replace("|", "\\|").replace("<", "‹").replace(">", "›").replace("`", "'")
    return why if len(why) <= WIDEST else why[: WIDEST - 1] + "…"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
