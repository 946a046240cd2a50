"""A study's record: everything that its report is made from, in six files to keep or to share.

study.json        the study as it was last started, as in plan.json
runs.jsonl        each run's arms and seed, how it ended, and its commit
recipes.yaml      the runs' resolved recipes, one YAML document each
evaluations.csv   every held-out figure
documents.csv     the same by document
steps.csv         the metrics of each step

They are text, so that git stores and compares them well and any program can read them. `ebft
report` writes the report beside them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ebft.errors import UserError
from ebft.evaluation.tables import read_tables, reading, write_evaluations
from ebft.files import parse_json, read_table, read_text, record, table, write_whole
from ebft.study.contents import (
    PLAN,
    RECORDED_RUN,
    RECORDED_STEP,
    RecordedRun,
    RecordedStep,
    StudyPlan,
)
from ebft.study.folder import RunFolder, StudyFolder
from ebft.study.report.records import RunRecord, StudyRecord

STUDY_FILE = "study.json"
RUNS_FILE = "runs.jsonl"
RECIPES_FILE = "recipes.yaml"
STEPS_FILE = "steps.csv"


def write_record(study: StudyRecord, of: StudyFolder) -> None:
    """Writes the record of a study into its folder.

    Raises `UserError` for a run or a metric that has the name of another column.
    """
    folder, metrics = of.record, study.metrics()
    folder.mkdir(exist_ok=True)
    content = json.dumps(asdict(study.plan), indent=1, ensure_ascii=False)
    write_whole(folder / STUDY_FILE, f"{content}\n")
    write_whole(folder / RUNS_FILE, "".join(f"{_run_line(run)}\n" for run in study.runs))
    recipes = (_recipe(of.run(run.name)) for run in study.runs)
    write_whole(folder / RECIPES_FILE, "".join(recipes))
    rows = (
        [run.name, step, *map(figures.get, metrics)]
        for run in study.runs
        for step, figures in run.steps.items()
    )
    try:
        write_evaluations(folder, {run.name: run.lines for run in study.runs})
        write_whole(folder / STEPS_FILE, table(["run", "step", *metrics], rows))
    except ValueError as error:
        raise UserError(f"{folder}: cannot be written: {error}; give one another name") from error


def read_record(folder: Path) -> StudyRecord:
    """Reads a record. Raises `UserError` naming the file, the row and the field that is damaged."""
    plan, runs = _plan(folder / STUDY_FILE), _runs(folder / RUNS_FILE)
    evaluations, steps = read_tables(folder), _steps(folder / STEPS_FILE)
    with reading(folder / RUNS_FILE):
        for name in (*evaluations, *steps):
            if name not in runs:
                raise ValueError(f"the run {name} is missing; other tables have its figures")
    return StudyRecord(
        plan,
        [
            RunRecord.of(
                name,
                run.description,
                run.result,
                evaluations.get(name, []),
                steps.get(name, []),
            )
            for name, run in runs.items()
        ],
    )


def _run_line(run: RunRecord) -> str:
    line = {
        "name": run.name,
        "description": asdict(run.description),
        "result": None if run.result is None else run.result.content(),
    }
    return json.dumps(line, ensure_ascii=False)


def _recipe(run: RunFolder) -> str:
    """The YAML document of a run's recipe; empty if the file no longer exists."""
    if not run.recipe.exists():
        return ""
    try:
        return f"--- # {run.path.name}\n{read_text(run.recipe)}"
    except ValueError as error:
        raise UserError(f"{run.recipe}: cannot be read: {error}") from error


def _plan(file: Path) -> StudyPlan:
    with reading(file):
        return record(parse_json(read_text(file)), PLAN)


def _runs(file: Path) -> dict[str, RecordedRun]:
    found = {}
    with reading(file):
        for number, line in enumerate(read_text(file).removesuffix("\n").split("\n"), 1):
            try:
                run = record(parse_json(line), RECORDED_RUN)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            found[run.name] = run
    return found


def _steps(file: Path) -> dict[str, list[RecordedStep]]:
    found: dict[str, list[RecordedStep]] = {}
    with reading(file):
        for _, step in read_table(file, RECORDED_STEP):
            found.setdefault(step.run, []).append(step)
    return found
