"""Causal architectures of transformers: exact on the layout that `auto` takes, or refused.

Here are those that are used most, and one of each mechanism; `make models` tries all of them, and
the table that it writes is held to the same bounds.
"""

import re
from importlib.metadata import version

import pytest
import torch

from tests.docs.pages import ROOT
from tests.models.shrink import architectures
from tests.models.sweep import examine
from tests.models.table import NOT_TRIED

EXACT = {"float64": 1e-9, "float32": 1e-5}
"""Largest difference from single texts, in nats or relative to the largest entry."""
FAST = ["bert", "deepseek_v3", "falcon", "gpt_oss", "llama"]
SLOW = [
    "gemma2", "gemma3", "gemma3n_text", "gemma4", "granitemoehybrid", "lfm2", "llama4_text",
    "mamba", "mamba2", "minicpm3", "modernbert-decoder", "nemotron", "opt", "qwen3_5_text",
    "qwen3_next", "reformer", "xglm",
]  # fmt: skip
PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w-]+)` \(\w+\) \| ([\w ]+) \| ([\de.-]*) \| (.*) \|$", re.MULTILINE)
TABLE = {name: rest for name, *rest in ROW.findall(PAGE)}
"""The layout of each architecture, how exact it is, and the remark."""


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_it_is_exact_and_trains(name):
    result = examine(name)
    layout, *_ = TABLE[name]
    assert result.layout == layout, result.why
    if layout == "refused":
        assert result.why.startswith("model.path: ")
        assert result.why.endswith("give another model")
        assert "\n" not in result.why
        return
    bound = EXACT[result.dtype]
    assert result.log_probs < bound
    assert result.features < bound
    assert result.gradients < bound
    assert result.sampled < bound
    assert len(result.losses) == 2
    assert all(torch.isfinite(torch.tensor(result.losses)))


@pytest.mark.skipif(
    f"transformers {version('transformers')}:" not in PAGE,
    reason="docs/models.md has the architectures of another version of transformers",
)
def test_the_table_has_every_architecture():
    assert sorted(TABLE) == architectures(), "run `make models`"


def test_in_the_table_all_are_exact_and_few_are_refused():
    assert set(FAST + SLOW) <= TABLE.keys()
    layouts = [layout for layout, *_ in TABLE.values() if layout != NOT_TRIED]
    assert set(layouts) <= {"tree", "rows", "refused"}
    assert len(layouts) > 175
    assert layouts.count("refused") < 0.05 * len(layouts)
    for layout, exact, remark in TABLE.values():
        if layout in ("tree", "rows"):
            assert float(exact) <= EXACT["float32" if "in float32" in remark else "float64"]
