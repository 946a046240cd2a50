"""What the files of a study say: of its folder, and of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, model_validator

from ebft.files import Amount, Count, Flag, Text
from ebft.runs.metrics_log import MetricsLine

DONE = "done"
FAILED = "failed"


def _name(name: str) -> str:
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise ValueError("it must be the name of a folder in runs/, and no path")
    return name


FolderName = Annotated[Text, Field(max_length=255), AfterValidator(_name)]


@dataclass(frozen=True, slots=True)
class ArmName:
    """What an arm is called, and which levels it sets.

    `variant` is empty if the study names none. `levels` is the label of each key's value where
    this arm sets one: all keys of the grid, or one of `one_at_a_time`.
    """

    label: Text
    variant: Text
    levels: Mapping[Text, Text]


@dataclass(frozen=True, slots=True)
class Description:
    """A run's arm and seed, and what its training takes.

    `arms` are all that came out with its recipe; it is called by the first. `tflop` is None for a
    model whose shape is not known.
    """

    arms: Annotated[Sequence[ArmName], Field(min_length=1)]
    seed: Count
    steps: Annotated[Count, Field(ge=1)]
    tflop: Amount | None
    keep_checkpoints: Flag


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, and after how many seconds.

    `error` says why it failed; None if it is done. `surroundings` (`ebft.study.surroundings`) are
    empty if its process ended before it said them.
    """

    seconds: float
    error: str | None
    surroundings: Mapping[str, str]

    @property
    def done(self) -> bool:
        return self.error is None

    @property
    def status(self) -> str:
        return DONE if self.done else FAILED

    def content(self) -> dict[str, Any]:
        """The fields that the file has: no error and no surroundings if there are none."""
        whole = {
            "status": self.status,
            "error": self.error,
            "seconds": self.seconds,
            "surroundings": dict(self.surroundings) or None,
        }
        return {key: value for key, value in whole.items() if value is not None}


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study as it was last called.

    `study` is its resolved file; `factors` are the labels of each key's values; `runs` are the
    names of the runs' folders, in order.
    """

    title: Text
    command: Text
    study: Text
    reference: Text
    factors: Mapping[Text, Sequence[Text]]
    runs: Sequence[FolderName]


class ResultFile(BaseModel):
    """What the file of a result says."""

    status: Literal["done", "failed"]
    error: Text | None = None
    seconds: Amount
    surroundings: Mapping[Text, Text] = {}

    @model_validator(mode="after")
    def _says_why(self) -> ResultFile:
        if (self.status == FAILED) != (self.error is not None):
            raise ValueError("error must say why a run failed, and be there for no other")
        return self

    def result(self) -> Result:
        return Result(self.seconds, self.error, self.surroundings)


class RecordedStep(MetricsLine):
    """A row of a record's steps: those of all runs in one table."""

    run: Text


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A line of a record's runs; `result` is None for one that had not ended."""

    name: FolderName
    description: Description
    result: ResultFile | None


DESCRIPTION, PLAN = TypeAdapter(Description), TypeAdapter(StudyPlan)
RESULT = TypeAdapter(ResultFile)
RECORDED_RUN, RECORDED_STEP = TypeAdapter(RecordedRun), TypeAdapter(RecordedStep)
