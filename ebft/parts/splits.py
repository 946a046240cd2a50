"""What a data source reads: texts to train on, and texts held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a data source: `prompt` is empty for raw text. `name` is unique in the source.

    `check` is what a verifiable reward compares a rollout with (unit tests, an answer), if any.
    `cluster` names what the text is a part of, such as a file, which is held out as a whole.
    """

    name: str
    completion: str
    prompt: str = ""
    check: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples to train on and those held out; no file or row is in both.

    `out_of_distribution` are held-out examples of a kind that train does not have (another package,
    another type of task); empty if the source does not distinguish them.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    out_of_distribution: Sequence[Example] = ()
