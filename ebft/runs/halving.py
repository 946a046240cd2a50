"""The first evaluation and the first step decide how many documents fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ebft.checkpoints.state import restore_before_update
from ebft.errors import MemoryShortError, is_out_of_memory
from ebft.runs.checkpointer import Checkpointer
from ebft.runs.memory import MemoryBudget
from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")
T = TypeVar("T")


class Halving:
    """Does something with half the micro-batch as often as it runs out of memory."""

    def __init__(self, loop: LoopParts, checkpointer: Checkpointer, budget: MemoryBudget) -> None:
        self._loop, self._checkpointer, self._budget = loop, checkpointer, budget

    def __call__(self, do: Callable[[], T]) -> T:
        """What `do` returns. Raises `MemoryShortError` when halving does not help."""
        while True:
            try:
                return do()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Processes must stay in step, and one that is out of memory is so by itself.
                alone = self._loop.processes.size == 1
                single = self._loop.micro_batch.documents == 1
                if single or not (alone and self._checkpointer.at_rest()):
                    raise self.memory_short() from error
            # Outside the handler, which holds what the failed attempt has allocated.
            self._halve()

    def memory_short(self) -> MemoryShortError:
        """What ends a run that does not fit, with the numbers."""
        return self._budget.short(self._loop.micro_batch.documents)

    def _halve(self) -> None:
        """Restores the parts' states from before the step."""
        micro_batch = self._loop.micro_batch
        need = self._budget.describe(micro_batch.documents)
        micro_batch.halve()
        log.warning(
            "out of memory: %s; continuing with %d, which changes no result",
            need, micro_batch.documents,
        )  # fmt: skip
        self._loop.optimizer.zero_grad(set_to_none=True)
        restore_before_update(self._loop, self._checkpointer.before)
