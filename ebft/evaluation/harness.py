"""Runs lm-evaluation-harness on a policy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt

from ebft.errors import UserError, first_line, suggest
from ebft.evaluation.lines import Line
from ebft.lazy import torch
from ebft.options import Options
from ebft.parts.packages import install
from ebft.parts.part import Resources

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("ebft")

NORMAL_95 = 1.96
HINT = f"`harness:` needs lm-evaluation-harness; run: {install('lm_eval')}"


class HarnessOptions(Options):
    """Tasks of lm-evaluation-harness, run by its own code."""

    tasks: tuple[str, ...] = Field(min_length=1, description="names, listed by `lm-eval ls tasks`")
    include_path: Path | None = Field(None, description="a folder with your own task files")
    num_fewshot: int | None = Field(
        None, ge=0, description="examples in the prompt; null: the task's default"
    )
    limit: PositiveInt | None = Field(None, description="items of each task; null: all")
    batch_size: PositiveInt = Field(8, description="items per forward")
    unsafe_code: bool = Field(
        False, description="allow tasks that run code of the model, outside ebft's sandbox"
    )


@dataclass(frozen=True, slots=True)
class HarnessFigure:
    """A task's metric with its filter ("acc,none"); `standard_error` is None if it has none."""

    task: str
    metric: str
    value: float
    standard_error: float | None


def check_harness(options: HarnessOptions) -> Any:
    """Returns the task manager. Raises `UserError` if the harness or a task is missing."""
    tasks = _import("lm_eval.tasks")
    folder = options.include_path
    if folder is not None and not folder.is_dir():
        raise UserError(f"harness.include_path = {folder}: no such folder")
    manager = tasks.TaskManager(include_path=None if folder is None else str(folder))
    for name in options.tasks:
        if name not in manager.all_tasks:
            raise UserError(
                f"harness.tasks: {name}: lm-evaluation-harness has no such task"
                f"{suggest(name, manager.all_tasks)}"
            )
    return manager


def run_harness(options: HarnessOptions, resources: Resources) -> list[HarnessFigure]:
    """Returns all figures of all tasks, for the policy in memory.

    Raises `UserError` like `check_harness`, and for a task whose data cannot be loaded.
    """
    manager = check_harness(options)
    evaluator, huggingface = _import("lm_eval.evaluator"), _import("lm_eval.models.huggingface")
    precision = resources.precision
    model = huggingface.HFLM(
        pretrained=resources.policy,
        tokenizer=resources.tokenizer,
        batch_size=options.batch_size,
        mixed_precision_dtype=None if precision == torch.float32 else precision,
    )
    try:
        found = evaluator.simple_evaluate(
            model=model,
            tasks=list(options.tasks),
            num_fewshot=options.num_fewshot,
            limit=options.limit,
            task_manager=manager,
            log_samples=False,
            confirm_run_unsafe_code=options.unsafe_code,
        )
    except (OSError, ValueError) as error:
        said = first_line(error)
        raise UserError(f"harness.tasks = {list(options.tasks)}: {said}") from error
    return [figure for task, row in found["results"].items() for figure in figures(task, row)]


def figures(task: str, row: dict[str, Any]) -> list[HarnessFigure]:
    """Returns the figures in a row of the results: `metric,filter` and `metric_stderr,filter`."""
    found = []
    for key, value in row.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = row.get(f"{metric}_stderr,{chosen}")
        if not isfinite(value):
            log.warning("%s %s is %s: left out, as no figure to compare", task, key, value)
            continue
        # Of a single document its spread is not known, and some versions say NaN.
        error = float(error) if isinstance(error, int | float) and isfinite(error) else None
        found.append(HarnessFigure(task, key, float(value), error))
    return found


def append_figures(file: Path, figures: Sequence[HarnessFigure]) -> None:
    """Appends figures to an evaluations file like `History`, with normal 95 % intervals."""
    with file.open("a", encoding="utf-8") as lines:
        for figure in figures:
            error = figure.standard_error
            line = Line(
                step=0,
                name=f"{figure.task} {figure.metric}",
                unit="lm-evaluation-harness",
                mean=figure.value,
                half_width_95=None if error is None else NORMAL_95 * error,
                set=figure.task,
            )
            lines.write(line.to_json() + "\n")


def _import(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{HINT} ({error})") from error
