"""What the paper's runs cost, by the cost model: the table in docs/reproduce.md.

python -m docs.generate.paper_cost        writes it there
"""

from __future__ import annotations

from pathlib import Path

from docs.generate.markdown import table
from ebft.config.load import load_recipe
from ebft.cost import ModelShape, flops, memory
from ebft.training.estimate import document_tree
from ebft.training.options import FineTuneOptions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduce.md"
BEGIN, END = "<!-- begin: costs -->\n", "<!-- end: costs -->"
PEAK = 989e12
"""FLOP/s of one H100 in bfloat16."""
HEADER = (
    "recipe", "steps", "TFLOP a document", "EFLOP", "H100 hours at 40 % MFU", "at 15 %", "GiB",
)  # fmt: skip
# Dimensions as the models' public config.json files have them.
SHAPES = {
    "meta-llama/Llama-3.2-1B": ModelShape(
        hidden=2048, layers=16, heads=32, kv_heads=8, head_dim=64, intermediate=8192, vocab=128256,
        tied=True,
    ),
    "Qwen/Qwen2.5-1.5B": ModelShape(
        hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, intermediate=8960, vocab=151936,
        tied=True,
    ),
    "Qwen/Qwen2.5-3B": ModelShape(
        hidden=2048, layers=36, heads=16, kv_heads=2, head_dim=128, intermediate=11008,
        vocab=151936, tied=True,
    ),
    "Qwen/Qwen2.5-7B": ModelShape(
        hidden=3584, layers=28, heads=28, kv_heads=4, head_dim=128, intermediate=18944,
        vocab=152064, tied=False,
    ),
}  # fmt: skip


def costs() -> str:
    """A row for every recipe of recipes/paper, for documents as long as they may be."""
    files = sorted(ROOT.glob("recipes/paper/*.yaml"))
    return table(HEADER, (row(file) for file in files))


def row(file: Path) -> tuple[str, ...]:
    """One run: its FLOPs, how long an H100 takes for them, and its memory on one GPU."""
    options = load_recipe(file).options
    assert isinstance(options, FineTuneOptions)
    training, shape, tree = options.training, SHAPES[options.model.path], document_tree(options)
    checkpointing = training.gradient_checkpointing
    assert training.micro_batch != "auto"  # what the page says must not depend on this machine
    document = flops(shape, tree, depth=0.75, gradient_checkpointing=checkpointing).total
    whole = document * training.documents_per_step * training.steps
    hours = whole / PEAK / 3600
    peak = memory(
        shape, tree, micro_batch=training.micro_batch, bytes_per_value=2,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    return (
        f"`{file.stem}`", f"{training.steps:,}", f"{document / 1e12:.0f}", f"{whole / 1e18:.1f}",
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
