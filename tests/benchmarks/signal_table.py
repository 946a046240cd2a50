"""The table of `tests.benchmarks.signal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]

NOTE = """\
`python -m tests.benchmarks.signal` says how this is measured. The default of the recipes is
`leave_one_out` with n = 4. All figures are of one document's policy gradient g.

- *FLOPs* and *noise*, tr Cov(g), relative to the default's. FLOPs are those of the cost model, with
  rollouts of full length, and those of a regression where there is one.
- *From rollouts*: the part of the noise that more rollouts lessen. The rest is of documents and
  references.
- *Gain*: how many times more signal ÷ noise than the default at equal FLOPs, with a 95 % interval
  over documents. All variants but `whiten_running` have the default's expected gradient, so that it
  is the ratio of noise × FLOPs. For `whiten_running` both signals have to be told from zero."""


def page(worlds: Sequence[Found]) -> str:
    """The page, with a table for each world."""
    lines = ["# Signal for the same compute", "", NOTE, ""]
    for found in worlds:
        texts = "" if found["texts"] == found["documents"] else f" of {found['texts']} texts"
        lines += [
            f"## {found['world']}: {found['documents']} documents{texts}",
            "",
            "| variant | FLOPs | noise | from rollouts | gain at equal FLOPs |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(line(row) for row in found["rows"]),
            "",
            f"`{found['command']}`, commit {found['commit']}.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def line(row: Found) -> str:
    """A variant's row."""
    noise = "another scale" if row["noise"] is None else f"{row['noise']:.2f}"
    return (
        f"| {row['variant']} | {row['flop']:.2f} | {noise} | {row['from_rollouts']:.0%} | "
        f"{shown(row['gain'])} |"
    )


def shown(gain: Found) -> str:
    """The ratio with its interval; null stands for infinity."""
    if gain["value"] is None or gain["high"] is None:
        return "not told"
    return f"{gain['value']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]"
