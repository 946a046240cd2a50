"""What a process that runs recipes does first, and how it runs one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TextIO

from ebft.console import BesideBars, write_all_letters
from ebft.errors import EXPLAINED, MemoryShortError, is_out_of_memory

if TYPE_CHECKING:
    from ebft.config.load import Recipe


def prepare_process(stream: TextIO) -> None:
    """Makes this process one that runs recipes: it logs to `stream`, in all letters."""
    log_to(stream)
    write_all_letters()


def log_to(stream: TextIO) -> None:
    """Shows ebft's messages on `stream`, and of torchao's only errors.

    Importing torchao warns that its C++ extensions do not fit this torch; ebft needs none of them.
    """
    log = logging.getLogger("ebft")
    log.handlers = [BesideBars(stream)]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("torchao").setLevel(logging.ERROR)


def run_job(recipe: Recipe) -> bool:
    """Runs a recipe; whether all of it was done.

    Raises what its job does, and `MemoryShortError` where that is a lack of memory.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run has its own; loading weights takes a second
    job = recipe.options.build(recipe.registry, source=recipe.source)
    try:
        job.setup()
        return job.run()
    except EXPLAINED:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        advice = recipe.options.when_memory_is_short()
        raise MemoryShortError(f"out of memory: {advice}") from error
    finally:
        job.cleanup()
