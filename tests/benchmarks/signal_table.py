"""The table of `tests.benchmarks.signal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]

NOTE = """\
`python -m tests.benchmarks.signal` says how this is measured. The default of the recipes is
`leave_one_out` with n = 4. All figures are of one document's policy gradient g.

- *FLOPs* and *noise*, tr Cov(g), relative to the default's. FLOPs are those of the cost model, with
  rollouts as long as they were.
- *Gain*: how many times more signal ÷ noise than the default at equal FLOPs, with a 95 % interval
  over documents. The expected gradient is the default's, so that it is the ratio of noise × FLOPs.
- *Without the loudest*: the same without the 2 % of documents that have most of the noise. A few
  documents, those with a rare rollout, may have nearly all of it, and the gain is then that of
  these few."""


def page(worlds: Sequence[Found]) -> str:
    """The page, with a table for each world."""
    lines = ["# Signal for the same compute", "", NOTE, ""]
    for found in worlds:
        texts = "" if found["texts"] == found["documents"] else f" of {found['texts']} texts"
        lines += [
            f"## {found['world']}: {found['documents']} documents{texts}",
            "",
            "| variant | FLOPs | noise | gain at equal FLOPs | without the loudest |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(line(row) for row in found["rows"]),
            "",
            *(f"- {how}" for how in found["measured"]),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def line(row: Found) -> str:
    """A variant's row."""
    cells = [row["variant"], f"{row['flop']:.2f}"]
    if "noise" in row:
        cells += [f"{row['noise']:.2f}", shown(row["gain"]), shown(row["quiet"])]
    else:
        cells += ["another scale", "not told", ""]
    return f"| {' | '.join(cells)} |"


def shown(gain: Sequence[float]) -> str:
    """The ratio with its interval."""
    value, low, high = gain
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
