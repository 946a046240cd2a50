"""`finetune` and `evaluate`: recipes with objects in place of some of their values."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.api.given import changes, modules_of, write_model, write_rows
from ebft.api.results import Run
from ebft.config.load import load_recipe
from ebft.config.overrides import Override, apply_overrides
from ebft.config.read import read_recipe, shipped_recipes
from ebft.console import log_to
from ebft.errors import UserError, suggest
from ebft.parts.registry import default_registry
from ebft.runs.jobs import run_job
from ebft.runs.options import EvaluateOptions, FineTuneOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ebft.config.recipe import RecipeOptions
    from ebft.parts.part import Part

    Given = Part | Mapping[str, Any] | str | None
    """A part: itself, its section in a recipe, or its name."""

log = logging.getLogger("ebft")
UNSET: Any = object()
"""The default of arguments for which None has a meaning of its own."""


def finetune(
    recipe: str | Path | Mapping[str, Any] = "ebft_completion",
    *,
    model: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Any = None,
    held_out: Any = None,
    output_dir: str | Path | None = None,
    plan: Given = UNSET,
    sampler: Given = UNSET,
    feature_map: Given = UNSET,
    transforms: list[Given] = UNSET,
    reward: Given = UNSET,
    baseline: Given = UNSET,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Fine-tunes a model by a recipe: the same run as `ebft run` of that recipe.

    ```python
    run = ebft.finetune("ebft_completion", model="Qwen/Qwen2.5-0.5B", data=rows,
                        overrides={"training.steps": 50})
    run.evaluations, run.steps, run.plot(), run.policy.generate(…)
    ```

    Args:
        recipe: the name of a recipe that comes with ebft, the path of a file, or a mapping.
        model: a name or folder, or a model with its `tokenizer`. A model is copied to
            `output_dir/given/model`, and is not changed itself.
        data: rows to train on: a `datasets.Dataset`, a list of dicts with `prompt` and
            `completion` (or `messages`, or `text`), or a list of texts. They are copied to
            `output_dir/given/train.jsonl`. By default the recipe's data.
        held_out: rows of the same form to measure on; by default a tenth of `data`.
        output_dir: the folder of the run; by default the recipe's.
        plan, sampler, feature_map, transforms, reward, baseline: parts in place of the recipe's.
            Each is an object (`reward=MyReward(scale=2)`), its section, or its name. None removes
            it.
        overrides: other values by their dotted keys; `{"~key": None}` deletes a key. They win over
            the arguments above.

    Returns the run, also if Ctrl-C stopped it, after its checkpoint; then the same call with
    `overrides={"checkpoint.resume": "auto"}` resumes it. Raises `UserError` with a line for each
    mistake, and the errors of `ebft run`.
    """
    parts = {
        "plan": plan, "sampler": sampler, "feature_map": feature_map, "transforms": transforms,
        "reward": reward, "baseline": baseline,
    }  # fmt: skip
    return _run(
        recipe, FineTuneOptions, model, tokenizer, data, held_out, output_dir,
        {key: part for key, part in parts.items() if part is not UNSET}, overrides or {},
    )  # fmt: skip


def evaluate(
    recipe: str | Path | Mapping[str, Any] = "evaluate",
    *,
    model: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    held_out: Any = None,
    output_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Measures a model without training it: the same as `ebft eval` of that recipe.

    The arguments are those of `finetune`; `held_out` are the rows to measure on.
    """
    return _run(
        recipe, EvaluateOptions, model, tokenizer, None, held_out, output_dir, {}, overrides or {}
    )


def _run(
    recipe: str | Path | Mapping[str, Any],
    kind: type[RecipeOptions],
    model: str | Path | PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Any,
    held_out: Any,
    output_dir: str | Path | None,
    parts: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Run:
    log_to(sys.stderr)  # before anything imports transformers
    registry = default_registry()
    values = dict(parts)
    if output_dir is not None:
        values["output_dir"] = str(output_dir)
    wanted = changes({**values, **overrides}, registry, origin="in the call")
    source = recipe if isinstance(recipe, Mapping) else find_recipe(recipe)
    folder = _output_dir(source, wanted)
    wanted = [
        *changes(_files(model, tokenizer, data, held_out, folder), registry, origin="in the call"),
        *wanted,
    ]
    loaded = load_recipe(source, wanted, importable=modules_of([parts, overrides]))
    if not isinstance(loaded.options, kind):
        raise UserError(
            f"{loaded.source}: recipe = {loaded.options.recipe}: "
            "finetune takes recipes of the kind finetune, and evaluate of the kind evaluate"
        )
    if not run_job(loaded.job):
        log.warning("stopped; checkpoint.resume=auto resumes it")
    return Run(loaded.options.output_dir)


def find_recipe(recipe: str | Path) -> Path:
    """Returns the file of a recipe, which is given by its path or by the name of one of ebft's.

    Raises `UserError` for a name that is neither.
    """
    shipped, path = shipped_recipes(), Path(recipe)
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise UserError(f"no recipe is named {str(recipe)!r}{suggest(str(recipe), shipped)}")
    return path


def _files(model: Any, tokenizer: Any, data: Any, held_out: Any, folder: Path) -> dict[str, Any]:
    """Writes what is given as objects, and returns the values that name the files."""
    given, values = folder / "given", dict[str, Any]()
    if isinstance(model, str | Path):
        values["model.path"] = str(model)
    elif model is not None:
        values["model.path"] = str(write_model(model, tokenizer, given / "model"))
    if data is not None:
        file = given / "train.jsonl"
        columns = write_rows(data, file, key="data")
        values["data"] = {"_component_": "files", "path": str(file), **columns}
    if held_out is not None:
        file = given / "held_out.jsonl"
        columns = write_rows(held_out, file, key="held_out")
        if data is None:
            values["data"] = {"_component_": "files", "path": str(file), **columns}
        elif values["data"] | columns != values["data"]:
            raise UserError("held_out: its columns are not those of data; give both the same")
        values["data"]["held_out_path"] = str(file)
    return values


def _output_dir(source: Path | Mapping[str, Any], wanted: list[Override]) -> Path:
    """Returns the run's folder, as far as it can be known before the recipe is validated."""
    found = apply_overrides(read_recipe(source).tree, wanted).get("output_dir")
    if not isinstance(found, str) or "${" in found:
        raise UserError("output_dir: missing; pass output_dir=…")
    return Path(found).expanduser()
