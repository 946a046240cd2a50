"""Reads a study from its folder or from its record."""

from __future__ import annotations

import logging
from pathlib import Path

from ebft.errors import UserError
from ebft.evaluation.lines import read_evaluations
from ebft.study.folder import PLAN_FILE, RunFolder, StudyFolder
from ebft.study.report.record_files import STUDY_FILE, read_record
from ebft.study.report.records import RunRecord, StudyRecord

log = logging.getLogger("ebft")


def read_study(path: Path) -> StudyRecord:
    """Reads a study's folder, or a record. Raises `UserError` if it is neither, or damaged."""
    if is_study(path):
        file, study = PLAN_FILE, _read_folder(StudyFolder(path))
    elif (path / STUDY_FILE).exists():
        file, study = STUDY_FILE, read_record(path)
    else:
        raise UserError(
            f"{path}: no study in this folder (neither {PLAN_FILE} nor a record's {STUDY_FILE} is "
            "there)"
        )
    for run in study.runs:
        for key, label in (item for arm in run.description.arms for item in arm.levels.items()):
            if label not in study.plan.factors.get(key, [label]):
                raise UserError(
                    f"{path / file} is damaged: factors: {key} has no value {label}, but the run "
                    f"{run.name} has it; run the study's command, which writes it again"
                )
    have = {run.name for run in study.runs}
    for name in dict.fromkeys(study.plan.runs):
        if name not in have:
            log.warning("%s: is in the study's plan but not in its folder; skipped", name)
    return study


def is_study(path: Path) -> bool:
    """Whether it is the folder of a study, and not a record."""
    return (path / PLAN_FILE).exists()


def _read_folder(folder: StudyFolder) -> StudyRecord:
    plan = folder.plan()
    assert plan is not None
    runs = [_read_run(folder.run(name)) for name in dict.fromkeys(plan.runs)]
    return StudyRecord(plan, [run for run in runs if run is not None])


def _read_run(folder: RunFolder) -> RunRecord | None:
    description = folder.description()
    if description is None:
        return None
    result = folder.result()  # read first, so that a run that is done has all its figures
    lines = read_evaluations(folder.evaluations) if folder.evaluations.exists() else []
    return RunRecord.of(folder.path.name, description, result, lines, folder.steps())
