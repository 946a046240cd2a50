"""Errors that are not a bug in ebft: the command line prints their message without a traceback.

A mistake in a recipe is a `ValidationError` with the path of its key. If a validator raises one,
pydantic prepends the path of the section to its keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ebft.printable import printable, shortened

LONGEST = 1000
"""Largest number of characters in a line of a message, because quoted values may be long."""


class Lines(Exception):  # noqa: N818 — a base class, never raised itself
    """An error whose arguments are the lines of its message.

    Each line is made `printable`, so quoted values cannot add lines or control a terminal.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(shortened(printable(line), LONGEST) for line in lines))


class UserError(Lines, ValueError):
    """A mistake in the user's input: a recipe, an option, a data set, a model path.

    The message names the key, the value and the fix. Exit status 2.
    """


class PluginError(UserError):
    """A plug-in that cannot be loaded, a name that two register, a part that takes other arguments
    or returns another shape than promised.

    The message names the plug-in and its origin, or the key of the part with what it has and what
    is promised.
    """


class SandboxError(UserError):
    """This machine lacks the isolation of generated programs that the recipe asks for.

    The message says what is missing."""


class NumericalError(Lines, ArithmeticError):
    """NaN or infinity in features, rewards, loss or gradients.

    The message names the optimizer step and the document. Nothing is written after it is raised.
    Exit status 1.
    """


class StorageError(Lines, RuntimeError):
    """A checkpoint or report cannot be written: a full disk, a folder without permission.

    Or a checkpoint that may be whole cannot be read.
    The message says what is still whole. Exit status 1.
    """


class RunsFailedError(Lines, RuntimeError):
    """Runs of a study failed; the others were completed.

    The message has a line for each failed run, with its reason. Exit status 1.
    """


class MemoryShortError(Lines, RuntimeError):
    """Out of memory where smaller micro-batches do not help, or after the first step.

    The message gives the estimated need, and which option to lower. Exit status 1.
    """


class FailedElsewhereError(Exception):
    """Another process failed and reported the reason; this one prints nothing. Exit status 1."""


class MissingProcessError(Lines, RuntimeError):
    """Processes timed out waiting for another. The message names that process and its position in
    the code. Exit status 1."""


class PolicyIntactError(Lines):
    """Something other than the policy failed, and the policy's weights are good.

    A run that ends with a subclass of this error saves a checkpoint first. A run of several
    processes can do so if `in_all_processes` is set: the error is raised in all of them, at the
    same place. Exit status 1.
    """

    in_all_processes = False


class EngineError(PolicyIntactError, RuntimeError):
    """An inference engine, often in a process of its own, did not start, died, hung or failed.

    The message names the engine, the request and the fix.
    """


class SamplerMismatchError(PolicyIntactError, NumericalError):
    """The sampler's log-probs differ from the policy's: the weights were not copied correctly.

    The message names the optimizer step, the largest difference and the tolerance.
    """


EXPLAINED = (
    UserError, NumericalError, MemoryShortError, StorageError, PolicyIntactError, RunsFailedError,
    MissingProcessError,
)  # fmt: skip
"""Errors that are shown by their message alone; any other is a bug, and shows a traceback."""


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of torch's allocators in a RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, by torch on any device or by Python."""
    import torch  # imported late, so that mistakes in a recipe are reported fast

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; its class name if the message is empty.

    If the first line ends with a colon, the second line is added.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.rstrip(".,")


UNKNOWN_KEY = "unknown_key"
"""The error type of a key that is not an option."""
WORDS = {True: "true", False: "false", None: "null"}
"""How a recipe writes these values."""
LISTED = 25
"""Most names that a message lists."""


class Mistake(NamedTuple):
    """A mistake in the value at a key; `kind` is pydantic's error type."""

    key: tuple[str | int, ...]
    value: Any
    message: str
    kind: str = "mistake"


def validation_error(title: str, mistakes: Iterable[Mistake]) -> ValidationError:
    """Returns one error for all mistakes in a section called `title`."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError(mistake.kind, mistake.message),
                loc=mistake.key,
                input=mistake.value,
            )
            for mistake in mistakes
        ],
    )


def unknown_key(key: str, value: Any, known: Iterable[str]) -> Mistake:
    """Returns the mistake of a key that is not in `known`."""
    return Mistake((key,), value, f"unknown key{suggest(key, known)}", UNKNOWN_KEY)


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?`, or the known words if none is similar and the list is short.

    >>> suggest("stirde", ["start", "stride"])
    "; did you mean 'stride'?"
    >>> suggest("x", ["start", "stride"])
    '; there are: start, stride'
    """
    known = sorted(known)
    if close := get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]!r}?"
    if not known:
        return "; there are none"
    return f"; there are: {', '.join(known)}" if len(known) <= LISTED else ""


def suggest_keys(error: ValidationError, known: Iterable[str]) -> ValidationError:
    """Returns the same error, with a suggestion for each unknown key of this section."""
    known = list(known)
    mistakes = []
    for detail in error.errors(include_url=False):
        key, value = detail["loc"], detail["input"]
        if detail["type"] == "extra_forbidden" and len(key) == 1:
            mistakes.append(unknown_key(str(key[0]), value, known))
        else:
            mistakes.append(Mistake(key, value, detail["msg"], detail["type"]))
    return validation_error(error.title, mistakes)
