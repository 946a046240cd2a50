"""Every causal architecture of transformers: exact on the layout that `auto` takes, or refused."""

import re

import pytest
import torch

from tests.docs.pages import ROOT
from tests.models.shrink import architectures
from tests.models.sweep import NotBuiltError, examine

EXACT = 1e-5
"""Largest difference from single texts of an architecture that computes partly in float32."""
SAMPLED = 1e-3
"""Nats. Nemotron's recurrence of single tokens differs from that of several by 4e-4."""
FAST = ["deepseek_v3", "falcon", "gemma3", "gpt_oss", "llama", "llama4", "mamba2"]
ENCODER = re.compile("bert(?!-decoder)|electra|ernie$|data2vec|big_bird|roformer|xmod")
"""Encoders with an LM head: as they are published, their tokens see later ones."""
NOT_TRIED = "not tried"
ROW = re.compile(r"^\| `([\w-]+)` \(\w+\) \| ([\w ]+) \|")


def table():
    """The layout of each architecture in docs/models.md."""
    lines = (ROOT / "docs/models.md").read_text(encoding="utf-8").splitlines()
    return dict(found.groups() for line in lines if (found := ROW.match(line)))


def check(name):
    if table()[name] == NOT_TRIED:
        with pytest.raises(NotBuiltError):
            examine(name)
        return
    result = examine(name)
    assert result.layout == table()[name], result.why
    if result.layout == "refused":
        assert result.why.startswith("model.path: ")
        assert result.why.endswith("give another model")
        assert "\n" not in result.why
        return
    assert result.log_probs < EXACT
    assert result.features < EXACT
    assert result.gradients < EXACT
    assert result.sampled < SAMPLED
    assert len(result.losses) == 2
    assert all(torch.isfinite(torch.tensor(result.losses)))


@pytest.mark.parametrize("name", FAST)
def test_some(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures() if name not in FAST])
def test_all(name):
    check(name)


def test_the_table_has_every_architecture_and_few_are_refused():
    layouts = table()
    assert sorted(layouts) == architectures(), "run python -m tests.models.table"
    tried = [layout for layout in layouts.values() if layout != NOT_TRIED]
    refused = [name for name, layout in layouts.items() if layout == "refused"]
    encoders = [name for name in refused if ENCODER.search(name)]
    assert len(tried) > 160
    assert (len(refused) - len(encoders)) / (len(tried) - len(encoders)) < 0.05
