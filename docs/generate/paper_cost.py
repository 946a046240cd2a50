"""What the paper's runs cost, by the cost model: the table in docs/reproduce.md.

`python -m docs.generate.paper_cost` writes it there.
"""

from __future__ import annotations

from pathlib import Path

from docs.generate.markdown import table
from ebft.config.load import load_recipe
from ebft.models.cost import memory
from ebft.runs.estimate import StepEstimate
from ebft.runs.options import FineTuneOptions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduce.md"
BEGIN, END = "<!-- begin: costs -->\n", "<!-- end: costs -->"
PEAK = 989e12
"""FLOP/s of one H100 in bfloat16."""
HEADER = (
    "recipe", "steps", "TFLOP a document", "EFLOP", "H100 hours at 40 % MFU", "at 15 %", "GiB",
)  # fmt: skip


def costs() -> str:
    """A row for every recipe of recipes/paper, for documents of the mean length."""
    files = sorted(ROOT.glob("recipes/paper/*.yaml"))
    return table(HEADER, (row(file) for file in files))


def row(file: Path) -> tuple[str, ...]:
    """One run: its FLOPs, how long an H100 takes for them, and its memory on one GPU."""
    options = load_recipe(file).options
    assert isinstance(options, FineTuneOptions)
    training = options.training
    assert training.micro_batch != "auto"  # what the page says must not depend on this machine
    estimate = StepEstimate.of(options)
    step = estimate.flops()
    hours = step * training.steps / PEAK / 3600
    peak = memory(
        estimate.model, estimate.tree, micro_batch=training.micro_batch,
        bytes_per_value=2, gradient_checkpointing=training.gradient_checkpointing, on_cpu=False,
    )  # fmt: skip
    return (
        f"`{file.stem}`", f"{training.steps:,}", f"{step / training.documents_per_step / 1e12:.0f}",
        f"{step * training.steps / 1e18:.1f}",
        f"{hours / 0.40:.0f}", f"{hours / 0.15:.0f}", f"{peak.total / 2**30:.0f}",
    )  # fmt: skip


def filled(page: str) -> str:
    """The page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{costs()}\n{END}{after}"


def main() -> None:
    """Writes the table into the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
