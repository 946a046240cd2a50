"""The model card of a checkpoint: the README.md that a hub shows.

It names no path of this machine, because checkpoints are shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from ebft.config.about import About
from ebft.evaluation.history import Evaluations
from ebft.printable import plain_markdown
from ebft.scoring.interval import TOO_FEW_NOTE, mean_interval

EMBEDDED = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Names in recipes that are other names on the hub."""
PARTS = ("plan", "sampler", "feature_map", "transforms", "reward", "baseline", "optimizer")
CITATION = """\
@article{jelassi2026matching,
  title   = {Matching Features, Not Tokens: Energy-Based Fine-Tuning of Language Models},
  author  = {Jelassi, Samy and Kwun, Mujin and Zhao, Rosie and Li, Yuanzhi and Fusi, Nicolo and
             Du, Yilun and Kakade, Sham M. and Domingo-Enrich, Carles},
  journal = {arXiv preprint arXiv:2603.12248},
  year    = {2026}
}"""
PLACE = "PATH_OR_REPO"
"""Stands for the checkpoint in the code that loads it."""
LOADING = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH_OR_REPO")
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_REPO")"""
LOADING_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "PATH_OR_REPO")
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_REPO")"""


def model_card(about: About, evaluations: Evaluations, *, method: str, adapter: bool) -> str:
    """Returns the card in Markdown, with the metadata that the hub reads at its top.

    `adapter` says whether the checkpoint holds an adapter alone.
    """
    recipe = about.recipe
    model = recipe["model"]
    base, data = base_name(model), recipe["data"]
    source = data["dataset"] if data["_component_"] == "hub" else None
    metadata = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(dict.fromkeys(["ebft", method.lower()])),
        **({"base_model": base} if "/" in base else {}),
        **({"datasets": [str(source)]} if source else {}),
    }
    lines = [
        "---", yaml.safe_dump(metadata, sort_keys=False).rstrip(), "---",
        "",
        f"# {plain_markdown(base)}, fine-tuned by {method}",
        "",
        (
            f"Trained for {about.step:,} steps of {recipe['training']['documents_per_step']:,} "
            f"documents with [ebft](https://arxiv.org/abs/2603.12248) {about.ebft}, on data of "
            f"`{plain_code(data['_component_'])}`{_named(source or data.get('path'))}."
        ),
        "",
        *_figures(evaluations),
        "## How it was trained",
        "",
        *_settings(recipe),
        "",
        *_whole_recipe(recipe),
        "## How to load it",
        "",
        "```python", _loading(recipe, base=base if adapter else None), "```",
        "",
        "## Citation",
        "",
        "```bibtex", CITATION, "```",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _loading(recipe: Mapping[str, Any], *, base: str | None) -> str:
    """Returns the code that loads the checkpoint, of an adapter that for its `base`; with the name
    of the repository, if checkpoints are uploaded to one."""
    hub = recipe["checkpoint"]["hub"]
    code = LOADING if base is None else LOADING_ADAPTER.format(base=base)
    return code if hub is None else code.replace(PLACE, hub["repo"])


def _whole_recipe(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Says where the recipe is, unless it is known that it is not uploaded."""
    hub = recipe["checkpoint"]["hub"]
    if hub is None or hub["state"]:
        yield from ("The whole recipe is in `run/about.json`.", "")


def base_name(model: Mapping[str, Any]) -> str:
    """Returns the name of the model that was trained, or the architecture of a new one."""
    if (new := model.get("from_config")) is not None:
        return f"A new {new['config']['model_type']}"
    return shared_name(model.get("base") or model["path"])


def shared_name(path: str) -> str:
    """Returns the name of a model without folders of this machine; a hub id stays as it is.

    >>> shared_name("Qwen/Qwen2.5-0.5B"), shared_name("/home/me/models/mine")
    ('Qwen/Qwen2.5-0.5B', 'mine')
    """
    if path in EMBEDDED:
        return EMBEDDED[path]
    parts = PurePath(path).parts
    is_hub_id = len(parts) == 2 and not path.startswith((".", "~", "/"))
    return path if is_hub_id else parts[-1] if parts else path


def plain_code(text: str) -> str:
    """Returns a text that can stand between backticks."""
    return plain_markdown(text).replace("\\", "").replace("`", "'")


def _named(path: str | None) -> str:
    return "" if path is None else f" ({plain_markdown(shared_name(path))})"


def _figures(evaluations: Evaluations) -> Iterator[str]:
    if not len(evaluations):
        return
    yield from ("## Held-out figures", "")
    yield from (
        "| | before | now | change, ± 95 % | documents |",
        "| --- | --- | --- | --- | --- |",
    )
    too_few = False
    for name, first in evaluations.first.items():
        if name not in evaluations.last:
            continue
        last = evaluations.last[name]
        *_, (_, change) = evaluations.changes(name)
        too_few |= change.too_few
        cells = [
            f"{name}, {first.unit}", f"{mean_interval(first).mean:.4f}",
            f"{mean_interval(last).mean:.4f}", f"{change.mean:+.4f} {change.plus_minus}",
            f"{int((last.weight > 0).sum()):,}",
        ]  # fmt: skip
        yield f"| {' | '.join(map(plain_markdown, cells))} |"
    yield ""
    if too_few:
        yield from (TOO_FEW_NOTE, "")


def _settings(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| | |", "| --- | --- |")
    for key in PARTS:
        if text := _part(recipe.get(key)):
            yield f"| {key} | {plain_markdown(text)} |"
    for name, value in {
        "γ of cross-entropy": recipe["objective"]["gamma"],
        "precision": recipe["model"]["precision"],
        "LoRA rank": (recipe["model"].get("lora") or {}).get("rank"),
        "seed": recipe["seed"],
    }.items():
        if value is not None:
            yield f"| {name} | {plain_markdown(str(value))} |"


def _part(section: Any) -> str:
    """Returns a part's name with its options, but without those that may be paths."""
    if isinstance(section, list | tuple):
        return ", ".join(map(_part, section))
    if not isinstance(section, Mapping):
        return ""
    options = [
        f"{name}={value}"
        for name, value in section.items()
        if name != "_component_" and isinstance(value, bool | int | float | list)
    ]
    return f"{section['_component_']}({', '.join(options)})"
