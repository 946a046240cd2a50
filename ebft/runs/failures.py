"""Handles the failure of a run: saves a checkpoint, and names the part that raised the error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ebft.checkpoints.checkpointer import Checkpointer
from ebft.errors import (
    MemoryShortError,
    NumericalError,
    PolicyIntactError,
    StorageError,
    is_out_of_memory,
)
from ebft.parts.part import Part
from ebft.parts.registry import Registry
from ebft.runs.signals import StepInterruptedError

if TYPE_CHECKING:
    from ebft.evaluation.measure import EvaluationSet
    from ebft.evaluation.options import EvaluationOptions
    from ebft.parts.interfaces import Evaluator

log = logging.getLogger("ebft")


@contextmanager
def saving_last_step(
    checkpointer: Checkpointer,
    *,
    blame: Callable[[Exception], str],
    memory_short: Callable[[], MemoryShortError],
) -> Iterator[None]:
    """Saves the last complete step when a step is interrupted, or fails with the policy intact.

    `blame` makes the note that names the part an error came from; `memory_short` makes the error
    that is raised for a lack of memory.
    """
    try:
        yield
    except StepInterruptedError:
        checkpointer.save_last_whole_step()
    except PolicyIntactError as error:
        _save_after_error(checkpointer, together=error.in_all_processes)
        raise
    except (NumericalError, StorageError, MemoryShortError):
        raise  # the policy may be damaged, or there is no room to save it
    except Exception as error:
        _save_after_error(checkpointer)
        if is_out_of_memory(error):
            raise memory_short() from error
        error.add_note(blame(error))
        raise


def _save_after_error(checkpointer: Checkpointer, *, together: bool = False) -> None:
    try:
        if checkpointer.save_last_whole_step(together=together):
            log.warning("the policy is intact; %s", checkpointer.newest())
    except StorageError as error:  # only logged: the first error ended the run
        log.error("%s", error)


def blame(
    error: BaseException, parts: Mapping[str, tuple[Part, Any]], registry: Registry, when: str
) -> str:
    """Returns a line that says when an error was raised, in which part, and from which plug-in.

    `parts` maps the key of each part to its options and to the built part.
    """
    key = find_part(error, {key: built for key, (_, built) in parts.items()})
    if key is None:
        return f"ebft: this was raised {when}, not in a part of the recipe"
    part = type(parts[key][0])
    name, origin = registry.name_of(part), registry.origin(part)
    return f"ebft: this was raised {when}, in {key} = {name} ({origin})"


def named_evaluators(
    options: EvaluationOptions, sets: Sequence[EvaluationSet]
) -> dict[str, tuple[Part, Evaluator]]:
    """The evaluators, as options and built, by their keys in the recipe; `sets` are built."""
    named: dict[str, tuple[Part, Evaluator]] = {}
    own = len(sets) - len(options.sets)
    for at, one in enumerate(sets):
        section = options if at < own else options.sets[at - own]
        key = "evaluation" if at < own else f"evaluation.sets.{at - own}"
        for i, (part, built) in enumerate(zip(section.evaluators, one.evaluators, strict=True)):
            named[f"{key}.evaluators.{i}"] = (part, built)
    return named


def find_part(error: BaseException, built: Mapping[str, Any]) -> str | None:
    """The key of the outermost part whose method or function is on the traceback, or on that of the
    error's cause; else None."""
    for frame, _ in walk_tb(error.__traceback__):
        for key, part in built.items():
            its_function = isinstance(part, FunctionType) and part.__code__ is frame.f_code
            if its_function or frame.f_locals.get("self") is part:
                return key
    return None if error.__cause__ is None else find_part(error.__cause__, built)
