"""`finetune` and `evaluate`: recipes with objects in place of some of their values."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.api.given import changes, check_model, modules_of, write_model, write_rows
from ebft.api.results import Run
from ebft.config.load import check_output_dir, load_recipe
from ebft.config.overrides import Override, apply_overrides
from ebft.config.read import read_recipe, shipped_recipes
from ebft.console import log_to
from ebft.errors import UserError, suggest
from ebft.files import check_writable, replacing
from ebft.parts.registry import default_registry
from ebft.runs.folder import LockedFolder
from ebft.runs.jobs import run_job
from ebft.runs.options import EvaluateOptions, FineTuneOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ebft.config.recipe import RecipeOptions
    from ebft.parts.part import Part

    Given = Part | Mapping[str, Any] | str | None
    """A part: itself, its section in a recipe, or its name."""

log = logging.getLogger("ebft")
TRAIN, HELD_OUT = "train.jsonl", "held_out.jsonl"
"""The files of rows in `output_dir/given`."""
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
        {key: part for key, part in parts.items() if part is not UNSET},
        {} if overrides is None else overrides,
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
        recipe,
        EvaluateOptions,
        model,
        tokenizer,
        None,
        held_out,
        output_dir,
        {},
        {} if overrides is None else overrides,
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
    wanted = [
        *changes(values, registry, origin="in the call"),
        *changes(overrides, registry, origin="in the call"),
    ]
    source = recipe if isinstance(recipe, Mapping) else find_recipe(recipe)
    folder = _output_dir(source, wanted)
    check_model(model, tokenizer)
    # The files of the rows appear when everything is checked: until then those of a run that is
    # there stay as they are.
    with ExitStack() as files:
        found = _model(model, folder) | _rows(data, held_out, folder, files)
        wanted = [*changes(found, registry, origin="in the call"), *wanted]
        loaded = load_recipe(source, wanted, importable=modules_of([parts, overrides]))
        if not isinstance(loaded.options, kind):
            raise UserError(
                f"{loaded.source}: recipe = {loaded.options.recipe}: "
                "finetune takes recipes of the kind finetune, and evaluate of the kind evaluate"
            )
        if found:
            _check_folder(loaded.options)
        if model is not None and not isinstance(model, str | Path):
            write_model(model, tokenizer, _given(folder) / "model")
    if not run_job(loaded.job):
        log.warning("stopped; checkpoint.resume=auto resumes it")
    return Run(loaded.options.output_dir)


def find_recipe(recipe: str | Path) -> Path:
    """Returns the file of a recipe, which is given by its path or by the name of one of ebft's.

    Raises `UserError` for a name that is neither, and for another object.
    """
    if not isinstance(recipe, str | Path):
        raise UserError(
            f"recipe: is a {type(recipe).__name__}; give the name of a recipe, a file or a dict"
        )
    shipped, path = shipped_recipes(), Path(recipe)
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise UserError(f"no recipe is named {str(recipe)!r}{suggest(str(recipe), shipped)}")
    return path


def _given(folder: Path) -> Path:
    return folder / "given"


def _model(model: Any, folder: Path) -> dict[str, Any]:
    """Returns the value that names the model, also one that is still to be written."""
    if model is None:
        return {}
    named = isinstance(model, str | Path)
    return {"model.path": str(model if named else _given(folder) / "model")}


def _rows(data: Any, held_out: Any, folder: Path, files: ExitStack) -> dict[str, Any]:
    """Writes rows to files, which appear when `files` is closed without an error, and returns the
    values that name them."""
    columns = {
        key: _write(rows, _given(folder) / name, files, key=key)
        for key, rows, name in (("data", data, TRAIN), ("held_out", held_out, HELD_OUT))
        if rows is not None
    }
    if not columns:
        return {}
    first, file = ("held_out", HELD_OUT) if data is None else ("data", TRAIN)
    section = {"_component_": "files", "path": str(_given(folder) / file), **columns[first]}
    if held_out is not None:
        if section | columns["held_out"] != section:
            raise UserError("held_out: its columns are not those of data; give both the same")
        section["held_out_path"] = str(_given(folder) / HELD_OUT)
    return {"data": section}


def _write(rows: Any, file: Path, files: ExitStack, *, key: str) -> dict[str, str]:
    absent = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    files.callback(_remove_empty, absent)
    try:
        check_writable(file.parent)
    except OSError as error:
        raise UserError(
            f"output_dir = {file.parent.parent}: cannot be written: {error.strerror}"
        ) from error
    return write_rows(rows, files.enter_context(replacing(file)), key=key)


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, the innermost first, up to one that has something in it."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _check_folder(options: RecipeOptions) -> None:
    """Raises `UserError` if the output folder holds another run, whose files would be replaced."""
    resume = None
    if isinstance(options, FineTuneOptions):
        resume = options.checkpoint.resume is not None
    assert isinstance(options, FineTuneOptions | EvaluateOptions)
    LockedFolder(options.output_dir, overwrite=options.overwrite).check(resume=resume)


def _output_dir(source: Path | Mapping[str, Any], wanted: list[Override]) -> Path:
    """Returns the run's folder, as far as it can be known before the recipe is validated."""
    written = read_recipe(source)
    found = apply_overrides(written.tree, wanted).get("output_dir")
    if not isinstance(found, str) or "${" in found:
        raise UserError("output_dir: missing; pass output_dir=…")
    check_output_dir(found, written.files[0])
    return Path(found).expanduser()
