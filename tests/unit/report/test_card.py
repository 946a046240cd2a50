"""The model card: what a hub reads of it, and what it must not tell."""

import re

import pytest
import torch
import yaml

from ebft.config.about import About
from ebft.config.dump import plain_options
from ebft.config.load import load_recipe
from ebft.evaluation.history import Evaluations
from ebft.evaluation.lines import DocumentsLine
from ebft.parts.measurements import Measurement
from ebft.report.card import model_card
from tests.conftest import RECIPES


def about(*overrides, recipe="ebft_full"):
    loaded = load_recipe(RECIPES / f"{recipe}.yaml", overrides)
    return About(30, plain_options(loaded.options, loaded.registry), {})


def evaluations(name="held-out CE", clusters=range(12)):
    torch.manual_seed(0)
    before = torch.rand(12, dtype=torch.float64) + 2
    return Evaluations.of(
        [
            DocumentsLine.of(
                step,
                Measurement(
                    name, "nats/token", value, torch.ones(12),
                    of="held-out", clusters=torch.tensor(list(clusters)),
                ),
                "digest",
            )
            for step, value in ((0, before), (30, before - 0.25))
        ]
    )  # fmt: skip


def metadata(card):
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_what_the_hub_reads():
    overrides = ("model.path=Qwen/Qwen2.5-0.5B", "data=hub", "data.dataset=nvidia/OpenCodeInstruct")
    card = model_card(about(*overrides), evaluations(), method="EBFT", adapter=False)
    assert metadata(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ebft"],
        "base_model": "Qwen/Qwen2.5-0.5B",
        "datasets": ["nvidia/OpenCodeInstruct"],
    }
    assert "# Qwen/Qwen2.5-0.5B, fine-tuned by EBFT" in card
    assert "30 steps of 4 documents" in card
    assert re.search(
        r"\| held-out CE, nats/token \| 2\.\d+ \| 2\.\d+ \| -0.2500 ± 0.0000 \| 12 \|", card
    )
    assert "| sampler | hf_tree(n=4, temperature=1.0" in card
    assert "| seed | 0 |" in card


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.path=/home/somebody/models/mine", "data.path=/home/somebody/src"),
        ("model.path=~/models/mine", "model.base=./here/base", "data.path=~/src"),
        ("plugins=[]", "data=files", "data.path=/home/somebody/secret/pairs.jsonl"),
    ],
)
def test_it_names_no_path_of_this_machine(overrides):
    card = model_card(about(*overrides), evaluations(), method="EBFT", adapter=False)
    for folder in ("/home", "somebody", "secret", "~", str(RECIPES.parent), "runs/"):
        assert folder not in card.replace("&#126;", "~")
    assert "base_model" not in metadata(card) or "mine" not in metadata(card)["base_model"]


def test_an_adapter_is_loaded_with_its_base():
    card = model_card(about(), Evaluations(), method="SFT", adapter=True)
    assert metadata(card)["library_name"] == "peft"
    assert 'from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")' in card
    assert "Held-out figures" not in card


@pytest.mark.parametrize("adapter", [False, True])
def test_the_code_that_loads_it_names_the_repository(adapter):
    hub = about("checkpoint.hub={repo: me/tiny}")
    named, unnamed = (
        model_card(it, Evaluations(), method="EBFT", adapter=adapter) for it in (hub, about())
    )
    assert named.count('"me/tiny")') == 2
    assert "PATH_OR_REPO" not in named
    where = "The whole recipe is in `run/about.json`.\n\n"
    assert named.replace("me/tiny", "PATH_OR_REPO") == unnamed.replace(where, "")
    whole = about("checkpoint.hub={repo: me/tiny, state: true}")
    assert where in unnamed
    assert where in model_card(whole, Evaluations(), method="EBFT", adapter=adapter)


def test_labels_make_no_markup_and_few_clusters_no_interval():
    card = model_card(
        about(), evaluations("<b>CE</b> | [x](y)", clusters=[0] * 12), method="EBFT", adapter=False
    )
    assert "<b>" not in card
    assert "[x](" not in card.replace("\\[", "")
    assert "(too few)" in card
