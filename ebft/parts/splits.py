"""What a data source reads: texts to train on, and texts held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a data source: `prompt` is empty for raw text. `name` is unique in the source.

    `check` is what a verifiable reward holds a rollout against (unit tests, an answer), if any.
    `cluster` names the larger thing that the text is a part of, a file say: held out as a whole.
    """

    name: str
    completion: str
    prompt: str = ""
    check: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples to train on and those held out; no file or row is in both.

    `out_of_distribution` are held-out examples of another kind than train has (another package,
    another sort of task), none if the source cannot tell.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    out_of_distribution: Sequence[Example] = ()
