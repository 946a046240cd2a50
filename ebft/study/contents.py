"""The schemas of the files in a study's folder and in its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, model_validator

from ebft.files import Amount, Count, Flag, Text
from ebft.runs.metrics_log import MetricsLine


def _name(name: str) -> str:
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise ValueError("it must be the name of a folder in runs/, not a path")
    return name


FolderName = Annotated[Text, Field(max_length=255), AfterValidator(_name)]


@dataclass(frozen=True, slots=True)
class ArmName:
    """The label of an arm, and the levels that it sets.

    `variant` is empty if the study has no variants. `levels` maps each key that this arm sets to
    the label of its value: all keys of the grid, or one of `one_at_a_time`.
    """

    label: Text
    variant: Text
    levels: Mapping[Text, Text]


@dataclass(frozen=True, slots=True)
class Description:
    """A run's arm and seed, and the cost of its training.

    `arms` are all arms with the same recipe; the run is named after the first. `tflop` is None for
    a model whose shape is not known. `starts_from` is the name of the run whose trained model it
    starts from, and `processes` are those that train together.
    """

    arms: Annotated[Sequence[ArmName], Field(min_length=1)]
    seed: Count
    steps: Annotated[Count, Field(ge=1)]
    tflop: Amount | None
    keep_checkpoints: Flag
    starts_from: FolderName | None = None
    processes: Annotated[Count, Field(ge=1)] = 1


class Result(BaseModel, frozen=True):
    """How a run ended, and after how many seconds.

    `error` says why it failed. `surroundings` (`ebft.report.surroundings`) is empty if the process
    ended without writing a result.
    """

    status: Literal["done", "failed"]
    error: Text | None = None
    seconds: Amount
    surroundings: Mapping[Text, Text] = {}

    @model_validator(mode="after")
    def _says_why(self) -> Result:
        if self.done != (self.error is None):
            raise ValueError("error must say why a run failed, and must be missing if it is done")
        return self

    @property
    def done(self) -> bool:
        return self.status == "done"

    def content(self) -> dict[str, Any]:
        """The fields of the file, without empty ones."""
        return self.model_dump(exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study as it was last started.

    `study` is its resolved file, `factors` has the labels of each key's values, and `runs` are the
    names of the runs' folders, in order. `reported` are figures of others, by measurement and arm.
    `note` is a sentence for the top of the report.
    """

    title: Text
    command: Text
    study: Text
    reference: Text
    factors: Mapping[Text, Sequence[Text]]
    runs: Sequence[FolderName]
    reported: Mapping[Text, Mapping[Text, float]] = field(default_factory=dict)
    note: Text = ""


class RecordedStep(MetricsLine):
    """A row of the table of steps in a record, which has the steps of all runs."""

    run: Text


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A line of the file of runs in a record; `result` is None if the run had not ended."""

    name: FolderName
    description: Description
    result: Result | None


DESCRIPTION, RESULT = TypeAdapter(Description), TypeAdapter(Result)
PLAN = TypeAdapter(StudyPlan)
RECORDED_RUN, RECORDED_STEP = TypeAdapter(RecordedRun), TypeAdapter(RecordedStep)
