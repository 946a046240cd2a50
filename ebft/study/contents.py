"""What the files of a study's folder say: plan.json, run.json, and result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DONE = "done"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ArmName:
    """What an arm is called, and which levels it sets.

    `variant` is empty if the study names none. `levels` is the label of each key's value where
    this arm sets one: all keys of the grid, or one of `one_at_a_time`.
    """

    label: str
    variant: str
    levels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Description:
    """A run's arm and seed, and what its training takes.

    `arms` are all that came out with its recipe; it is called by the first. `tflop` is None for a
    model whose shape is not known.
    """

    arms: Sequence[ArmName]
    seed: int
    steps: int
    tflop: float | None
    keep_checkpoints: bool

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Description:
        return cls(
            arms=[ArmName(arm["label"], arm["variant"], arm["levels"]) for arm in content["arms"]],
            seed=content["seed"],
            steps=content["steps"],
            tflop=content["tflop"],
            keep_checkpoints=content["keep_checkpoints"],
        )


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

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Result:
        return cls(
            seconds=content["seconds"],
            error=None if content["status"] == DONE else content["error"],
            surroundings=content.get("surroundings", {}),
        )

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

    title: str
    command: str
    study: str
    reference: str
    factors: Mapping[str, Sequence[str]]
    runs: Sequence[str]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> StudyPlan:
        return cls(
            title=content["title"],
            command=content["command"],
            study=content["study"],
            reference=content["reference"],
            factors=content["factors"],
            runs=content["runs"],
        )
