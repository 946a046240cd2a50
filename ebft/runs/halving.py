"""The first evaluation and the first step decide how many documents fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ebft.checkpoints.state import restore_before_update
from ebft.errors import MemoryShortError, is_out_of_memory
from ebft.runs.checkpointer import Checkpointer
from ebft.runs.finetune_options import FineTuneOptions
from ebft.runs.memory import describe_need, memory_short
from ebft.training.machinery import Machinery

log = logging.getLogger("ebft")
T = TypeVar("T")


class Halving:
    """Does something with half the micro-batch as often as it runs out of memory.

    `free` bytes were free before any model was loaded.
    """

    def __init__(
        self,
        options: FineTuneOptions,
        machinery: Machinery,
        checkpointer: Checkpointer,
        *,
        free: int,
    ) -> None:
        self._options, self._machinery, self._checkpointer = options, machinery, checkpointer
        self._free = free

    def __call__(self, do: Callable[[], T]) -> T:
        """What `do` returns. Raises `MemoryShortError` when halving does not help."""
        while True:
            try:
                return do()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Processes must stay in step, and one that is out of memory is so by itself.
                alone = self._machinery.processes.size == 1
                single = self._machinery.micro_batch.documents == 1
                if single or not (alone and self._checkpointer.at_rest()):
                    raise self.memory_short() from error
            # Outside the handler, which holds what the failed attempt has allocated.
            self._halve()

    def memory_short(self) -> MemoryShortError:
        """What ends a run that does not fit, with the numbers."""
        return memory_short(
            self._options, micro_batch=self._machinery.micro_batch.documents,
            free=self._free, processes=self._machinery.processes.size,
        )  # fmt: skip

    def _halve(self) -> None:
        """Gives the parts back as they were before."""
        micro_batch = self._machinery.micro_batch
        need = describe_need(
            self._options, micro_batch=micro_batch.documents, free=self._free, processes=1
        )
        micro_batch.halve()
        log.warning(
            "out of memory: %s; going on with %d, which changes no result",
            need, micro_batch.documents,
        )  # fmt: skip
        self._machinery.optimizer.zero_grad(set_to_none=True)
        restore_before_update(self._machinery, self._checkpointer.before)
