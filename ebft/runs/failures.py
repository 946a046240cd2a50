"""What happens when a run fails: what is saved, and which part of the recipe it came from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, FunctionType, TracebackType
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
from ebft.runs.signals import BrokenOffError

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
    """Saves the last whole step when a step is broken off, or fails with the policy intact.

    `blame` says which part an error came from; `memory_short` makes the error of one that is a lack
    of memory.
    """
    try:
        yield
    except BrokenOffError:
        checkpointer.save_last_whole_step()
    except PolicyIntactError:
        _save_after_error(checkpointer)
        raise
    except (NumericalError, StorageError, MemoryShortError):
        raise  # the policy may be bad, or there is no room for it
    except Exception as error:
        _save_after_error(checkpointer)
        if is_out_of_memory(error):
            raise memory_short() from error
        error.add_note(blame(error))
        raise


def _save_after_error(checkpointer: Checkpointer) -> None:
    try:
        if checkpointer.save_last_whole_step():
            log.warning("the policy is intact; %s", checkpointer.newest())
    except StorageError as error:  # the first error is what ended the run
        log.error("%s", error)


def blame(
    error: BaseException, parts: Mapping[str, tuple[Part, Any]], registry: Registry, when: str
) -> str:
    """One line: the part in whose code the error arose, its plug-in, and when.

    `parts` are by key, each as the recipe has it and as it was built.
    """
    key = find_part(error, {key: built for key, (_, built) in parts.items()})
    if key is None:
        return f"ebft: this was raised {when}, in no part of the recipe"
    part = type(parts[key][0])
    name, origin = registry.name_of(part), registry.origin(part)
    return f"ebft: this was raised {when}, in {key} = {name} ({origin})"


def named_evaluators(
    options: EvaluationOptions, sets: Sequence[EvaluationSet]
) -> dict[str, tuple[Part, Evaluator]]:
    """The evaluators by their keys in the recipe, for `blame`; `sets` are as they were built."""
    named: dict[str, tuple[Part, Evaluator]] = {}
    own = len(sets) - len(options.sets)
    for at, one in enumerate(sets):
        section = options if at < own else options.sets[at - own]
        key = "evaluation" if at < own else f"evaluation.sets.{at - own}"
        for i, (part, built) in enumerate(zip(section.evaluators, one.evaluators, strict=True)):
            named[f"{key}.evaluators.{i}"] = (part, built)
    return named


def find_part(error: BaseException, built: Mapping[str, Any]) -> str | None:
    """The key of the outermost part on the traceback: in one of its methods, or in the function
    that it is. None if there is none."""
    for frame in _frames(error.__traceback__):
        for key, part in built.items():
            its_function = isinstance(part, FunctionType) and part.__code__ is frame.f_code
            if its_function or frame.f_locals.get("self") is part:
                return key
    return None


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    """The calls that the error went through, outermost first."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
